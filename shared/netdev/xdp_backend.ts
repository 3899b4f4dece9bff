/** An AF_XDP socket behind a port: frames of one queue of an interface, without the kernel's stack between. */
import * as N from "../layout/netdev.ts";
import { Interfaces, type WasmMemory, XdpProgram, XdpSocket } from "../os/mod.ts";
import type { Backend, Drive, Link } from "./backend.ts";
import { ethernetOf, linkOf } from "./link.ts";

const RING_COUNT = 4;

/** An interface with the program that leads to its ports' sockets. */
export class XdpBackend implements Backend {
  readonly name: string;
  readonly interface: string;
  /** Frames cross whole: nothing says of one what would be left to do. */
  readonly features = 0n;
  readonly #queue: number;
  readonly #interfaces = new Interfaces();
  readonly #index: number;
  readonly #program: XdpProgram;
  #socket: XdpSocket | undefined;

  /** Puts the program on interface `name`. Throws what to do if it cannot be. */
  constructor(name: string, queue: number) {
    this.name = `xdp ${name}`;
    this.interface = name;
    this.#queue = queue;
    try {
      const { index } = ethernetOf(this.#interfaces, name, "use XDP");
      this.#index = index;
      this.#program = new XdpProgram(name, index, queue + 1);
    } catch (error) {
      this.#interfaces.close();
      throw error;
    }
  }

  accept(): void {}

  /** A socket of its own for each port, since its packet memory is the port's. */
  async open(memory: WasmMemory): Promise<Drive> {
    const place = { name: this.interface, index: this.#index, queue: this.#queue };
    const socket = await XdpSocket.open(memory, {
      ...{ umem: N.ND_UMEM, umemBytes: N.ND_UMEM_BYTES, chunkBytes: N.ND_CHUNK_BYTES },
      rings: Array.from({ length: RING_COUNT }, (_, i) => N.ND_XDP_RINGS + i * N.ND_XDP_RING_STRIDE),
      sizes: [N.ND_XDP_FILL_SIZE, N.ND_XDP_SEND_SIZE, N.ND_XDP_FILL_SIZE, N.ND_XDP_SEND_SIZE],
    }, place);
    this.#socket = socket;
    socket.rings.forEach(({ producer, consumer, flags, entries }, i) => {
      const at = N.ND_CONTROL + N.NC_XDP_RINGS + i * N.NC_XDP_RING_STRIDE;
      [producer, consumer, flags, entries].forEach((word, k) => memory.view.setUint32(at + k * 4, word, true));
    });
    return { kind: "xdp", file: socket.fd.number };
  }

  /** The worker has begun: what comes in goes to it. */
  begin(): void {
    if (this.#socket) this.#program.redirect(this.#queue, this.#socket.fd.number);
  }

  release(): void {
    this.#socket?.close();
    this.#socket = undefined;
  }

  link(): Link | undefined {
    const state = this.#interfaces.state(this.interface);
    return state?.index === this.#index ? linkOf(state, this.interface) : undefined;
  }

  kernelDrops(): Record<string, number> {
    return { in_kernel_drops: this.#socket?.drops ?? 0 };
  }

  close(): void {
    this.release();
    this.#program.close();
    this.#interfaces.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
