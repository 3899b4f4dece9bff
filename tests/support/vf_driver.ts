/** A driver of a VF over the device socket, as a test plays it: memory of its own, two advanced rings, a connection. */
import { ADV_DESC_BYTES, ADV_REG_TAIL } from "../../shared/layout/advanced.ts";
import { DeviceClient, type RequestInput } from "../../shared/device/mod.ts";
import { createEventFd, createMemfd, type Fd, fileStatus, type Reactor } from "../../shared/os/mod.ts";

const MEMORY_BYTES = 2 * 1024 ** 2;
const SIZE = 64;

/** One driver. Its connection stays open when it has lost its VF, so that it can go on asking. */
export class Driver {
  readonly name: string;
  readonly memory = createMemfd("driver", MEMORY_BYTES);
  readonly inode = fileStatus(this.memory.number).inode;
  readonly iova: bigint;
  readonly client: DeviceClient;
  readonly #eventfds = [createEventFd(), createEventFd()];
  ended = false;
  /** It has had a VF, and has not given it back of its own accord. */
  mustBeOwner = false;

  constructor(name: string, number: number, socket: string, reactor: Reactor) {
    this.name = name;
    this.iova = BigInt(number) << 32n;
    this.client = DeviceClient.connect(socket, reactor);
    void this.client.closed.then(() => this.ended = true);
  }

  async attach(vf: number, mode: "emulated" | "passthrough", token?: string): Promise<void> {
    const right = token === undefined ? {} : { token };
    await this.client.request({ op: "attach", vf, owner: this.name, mode, ...right });
    this.mustBeOwner = true;
  }

  async detach(): Promise<void> {
    this.mustBeOwner = false;
    await this.client.request({ op: "detach" });
  }

  /** Maps its memory and starts a queue pair. */
  async drive(): Promise<void> {
    using page = await this.client.requestFd({ op: "region", name: "registers" });
    // Its receive ring has room, so that nobody waits for it when a hold ends.
    using file = Deno.openSync(`/proc/self/fd/${page.number}`, { write: true });
    file.seekSync(ADV_REG_TAIL, Deno.SeekMode.Start);
    file.writeSync(new Uint8Array(new Uint32Array([SIZE - 1]).buffer));
    await this.map();
    for (const index of [0, 1]) await this.start(index);
  }

  map(): Promise<unknown> {
    const regions = [{ iova: this.iova, size: MEMORY_BYTES, offset: 0 }];
    return this.client.request({ op: "dmaSet", regions }, [this.memory.number]);
  }

  start(index: number): Promise<unknown> {
    const desc = this.iova + BigInt(index * SIZE * ADV_DESC_BYTES);
    const request: RequestInput = {
      ...{ op: "queueStart", index, flavour: "advanced", size: SIZE, desc, base: 0 },
      ...{ kick: index === 1, call: index === 0 },
    };
    return this.client.request(request, [(this.#eventfds[index] as Fd).number]);
  }

  close(): void {
    this.client.close();
    for (const fd of [this.memory, ...this.#eventfds]) fd.close();
  }
}
