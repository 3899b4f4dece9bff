/** The Wasm module of a netdev port over a plain memory: the test plays the kernel on one side and the NIC on the other. */
import * as N from "../../shared/layout/netdev.ts";
import * as V from "../../shared/layout/virtio.ts";
import { writeWords } from "../../shared/netdev/calls.ts";
import { PORT_COUNTER_NAMES, readCounters } from "../../shared/netdev/counters.ts";
import type { PortExports } from "../../shared/netdev/rounds.ts";
import { loadWasm } from "../../shared/wasm/load.ts";

const RING = N.ND_IO_RING;
const ENTRIES = RING + 64;
const MASK = N.ND_IO_ENTRY_COUNT - 1;

/** A submission as the kernel sees it. */
export interface Submission {
  isRead: boolean;
  id: number;
  /** Where in the memory it is to read or write, and how much; of a packet socket, where its message is. */
  at: number;
  bytes: number;
}

/** A module between a kernel and a NIC. */
export class TestPort {
  readonly view: DataView;
  readonly module: PortExports;
  #rxUsed = 0;
  #txTaken = 0;

  private constructor(view: DataView, module: PortExports) {
    this.view = view;
    this.module = module;
  }

  /** A port that has begun, and may read. */
  static async start(isPacket = false): Promise<TestPort> {
    const pages = N.ND_MEMORY_BYTES / 65536;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const view = new DataView(memory.buffer);
    const instance = new WebAssembly.Instance(await loadWasm("netdev"), { env: { memory } });
    const port = new TestPort(view, instance.exports as unknown as PortExports);
    writeWords(memory, {
      ...{ sqHead: RING, sqTail: RING + 4, sqMask: MASK, cqHead: RING + 8, cqTail: RING + 12 },
      ...{ cqMask: MASK, cqEntries: ENTRIES, file: 0, entryFlags: 0, readOp: 0, writeOp: 0, opFlags: 0 },
    });
    view.setUint32(N.ND_CONTROL + N.NC_IS_PACKET, isPacket ? 1 : 0, true);
    view.setUint32(N.ND_CONTROL + N.NC_RX_STRIDE, N.ND_BUFFER_STRIDE, true);
    view.setUint32(N.ND_CONTROL + N.NC_QUEUE_SIZE, N.ND_QUEUE_SIZE, true);
    port.module.start();
    port.request(N.REQUEST_RUN);
    return port;
  }

  request(what: number): void {
    this.view.setUint32(N.ND_CONTROL + N.NS_REQUEST, what, true);
  }

  get fault(): number {
    return this.view.getUint32(N.ND_CONTROL + N.NS_FAULT, true);
  }

  /** Counters that are not 0. */
  get counters(): Record<string, number> {
    const all = readCounters(this.view);
    return Object.fromEntries(PORT_COUNTER_NAMES.flatMap((name) => all[name] ? [[name, all[name]]] : []));
  }

  /** What the module submits in a round. */
  submissions(): Submission[] {
    const count = this.module.compose();
    const head = this.view.getUint32(RING, true);
    this.view.setUint32(RING, head + count, true);
    return Array.from({ length: count }, (_, i) => {
      const entry = N.ND_IO_ENTRIES + ((head + i) & MASK) * N.SQE_BYTES;
      const what = this.view.getUint32(entry + N.SQE_USER_DATA, true);
      return {
        isRead: (what & N.DID_WRITE) === 0,
        id: what & 0xffff,
        // The module was told that the memory begins at 0.
        at: Number(this.view.getBigUint64(entry + N.SQE_ADDRESS, true)),
        bytes: this.view.getUint32(entry + N.SQE_LENGTH, true),
      };
    });
  }

  /** The kernel completes submissions with these results; answers the round's status. */
  complete(...done: [Submission, number][]): number {
    for (const [{ isRead, id }, result] of done) {
      const tail = this.view.getUint32(RING + 12, true);
      const entry = ENTRIES + (tail & MASK) * N.CQE_BYTES;
      this.view.setUint32(entry, id | (isRead ? N.DID_READ : N.DID_WRITE), true);
      this.view.setInt32(entry + N.CQE_RESULT, result, true);
      this.view.setUint32(RING + 12, tail + 1, true);
    }
    return this.module.settle();
  }

  // The NIC ----------------------------------------------------------------------------------------------------

  /** Receive descriptors that the NIC has been given, in order. */
  get offered(): number[] {
    const idx = this.view.getUint16(N.ND_RX_AVAIL + V.VIRTQ_AVAIL_IDX, true);
    return Array.from({ length: Math.min(idx, N.ND_QUEUE_SIZE) }, (_, i) => {
      const slot = (idx - Math.min(idx, N.ND_QUEUE_SIZE) + i) % N.ND_QUEUE_SIZE;
      return this.view.getUint16(N.ND_RX_AVAIL + V.VIRTQ_AVAIL_RING + slot * 2, true);
    });
  }

  /** The NIC says that it has put `bytes` bytes into receive descriptor `id`. */
  deliver(id: number, bytes: number): void {
    const at = N.ND_RX_USED + V.VIRTQ_USED_RING + (this.#rxUsed % N.ND_QUEUE_SIZE) * V.VIRTQ_USED_ELEM_BYTES;
    this.view.setUint32(at, id, true);
    this.view.setUint32(at + 4, bytes, true);
    this.view.setUint16(N.ND_RX_USED + V.VIRTQ_USED_IDX, ++this.#rxUsed & 0xffff, true);
  }

  /** The frames that the NIC has been handed since this was last asked: where they are, and their lengths. */
  taken(): { id: number; at: number; bytes: number }[] {
    const idx = this.view.getUint16(N.ND_TX_AVAIL + V.VIRTQ_AVAIL_IDX, true);
    const frames = [];
    for (; this.#txTaken !== idx; this.#txTaken = (this.#txTaken + 1) & 0xffff) {
      const slot = this.#txTaken % N.ND_QUEUE_SIZE;
      const id = this.view.getUint16(N.ND_TX_AVAIL + V.VIRTQ_AVAIL_RING + slot * 2, true);
      const descriptor = N.ND_TX_DESC + id * V.VIRTQ_DESC_BYTES;
      frames.push({
        id,
        at: Number(this.view.getBigUint64(descriptor, true)),
        bytes: this.view.getUint32(descriptor + 8, true),
      });
    }
    return frames;
  }

  /** The NIC says that it has sent these descriptors. */
  sent(...ids: number[]): void {
    for (const id of ids) {
      const idx = this.view.getUint16(N.ND_TX_USED + V.VIRTQ_USED_IDX, true);
      const at = N.ND_TX_USED + V.VIRTQ_USED_RING + (idx % N.ND_QUEUE_SIZE) * V.VIRTQ_USED_ELEM_BYTES;
      this.view.setUint32(at, id, true);
      this.view.setUint16(N.ND_TX_USED + V.VIRTQ_USED_IDX, (idx + 1) & 0xffff, true);
    }
  }
}
