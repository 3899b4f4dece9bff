/**
 * The plugin for advanced rings between a shell and a device that are both the test's. The device understands contexts: of
 * each frame it says what it was asked for (reference_context.ts).
 */
import { assert, assertEquals } from "@std/assert";
import * as A from "../../shared/layout/advanced.ts";
import * as P from "../../shared/layout/plugin.ts";
import { WasmMemory } from "../../shared/os/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import { join } from "./plugin_rig.ts";
import type { Context, Described } from "./reference_context.ts";

const [RX, TX] = [0, 1];
/** How the device addresses rings and buffers: beyond 32 bits, so that nothing may be cut off. */
const RINGS_IOVA = 0x10_0000_0000n;
const BUFFERS_IOVA = 0x7f_ff00_0000n;

const module = await loadWasm("plugin-advanced");
const space = new WasmMemory(P.PLUGIN_MEMORY_BYTES);
const { memory } = space;

interface PluginExports {
  start(): number;
  tx(pair: number, count: number): number;
  txDone(pair: number, max: number): number;
  post(pair: number, count: number): number;
  rx(pair: number, max: number): number;
}

/** One started plugin with one queue pair. */
export class AdvancedPluginRig {
  readonly #view = new DataView(memory.buffer);
  readonly #bytes = new Uint8Array(memory.buffer);
  readonly #plugin: PluginExports;
  readonly #size: number;
  readonly #headerRoom: number;
  readonly #heads = [0, 0];
  readonly #set: Partial<Context>[] = [{}, {}];
  #next = 0;
  /** Context descriptors that the device has seen; buffers that the plugin has taken. */
  contexts = 0;
  sent = 0;

  constructor(features: bigint, size: number, headerRoom = 0) {
    this.#size = size;
    this.#headerRoom = headerRoom;
    const view = this.#view;
    space.clear(P.PLUGIN_STATE, P.PLUGIN_BUFFERS - P.PLUGIN_STATE);
    view.setUint32(P.PLUGIN_STATE + P.PC_QUEUE_PAIRS, 1, true);
    view.setUint32(P.PLUGIN_STATE + P.PC_RING_SIZE, size, true);
    view.setUint32(P.PLUGIN_STATE + P.PC_HEADER_BYTES, headerRoom, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_FEATURES, features, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_RINGS_IOVA, RINGS_IOVA, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_BUFFERS_IOVA, BUFFERS_IOVA, true);
    const imports = { env: { memory }, shell: { notify: () => {} } };
    this.#plugin = new WebAssembly.Instance(module, imports).exports as unknown as PluginExports;
    assertEquals(this.#plugin.start(), 0, "the plugin starts");
  }

  /** Which features the plugin has taken up. */
  get accepted(): bigint {
    return this.#view.getBigUint64(P.PLUGIN_STATE + P.PC_ACCEPTED, true);
  }

  #bufferAt(buffer: number): number {
    return P.PLUGIN_BUFFERS + buffer * P.PLUGIN_BUFFER_BYTES;
  }

  // The shell ----------------------------------------------------------------------------------------------------

  /** Writes a frame in pieces into buffers and LIST_TX; answers how many entries that is. */
  list(pieces: readonly Uint8Array[], header: Uint8Array | undefined): number {
    pieces.forEach((piece, i) => {
      const buffer = (this.#next + i) % P.PLUGIN_BUFFER_COUNT;
      const offset = i === 0 ? P.TX_HEADROOM : 0;
      this.#bytes.set(piece, this.#bufferAt(buffer) + offset);
      if (header && i === 0) this.#bytes.set(header, this.#bufferAt(buffer) + offset - header.length);
      const flags = (i === pieces.length - 1 ? P.ENTRY_EOP : 0) | (header && i === 0 ? P.ENTRY_NET_HDR : 0);
      [buffer, offset, piece.length, flags].forEach((word, k) =>
        this.#view.setUint32(P.LIST_TX + i * P.ENTRY_BYTES + k * 4, word, true)
      );
    });
    return pieces.length;
  }

  /** Has the plugin send what is listed; answers how many entries it took. */
  offer(entries: number): number {
    const taken = this.#plugin.tx(0, entries);
    assert(taken === 0 || taken === entries, `tx took ${taken} of ${entries}`);
    this.#next += taken;
    this.sent += taken;
    return taken;
  }

  send(pieces: readonly Uint8Array[], header: Uint8Array | undefined): number {
    return this.offer(this.list(pieces, header));
  }

  /** Takes back what has been sent; answers how many buffers, each once. */
  takeBack(): number {
    const seen: number[] = [];
    for (let n = -1; n !== 0;) {
      n = this.#plugin.txDone(0, 10);
      for (let i = 0; i < n; i++) seen.push(this.#view.getUint32(P.LIST_DONE + i * 4, true));
    }
    assert(seen.every((buffer) => buffer < P.PLUGIN_BUFFER_COUNT), "something that is no buffer is reported");
    return seen.length;
  }

  /** Gives the plugin as many buffers as it takes. */
  post(): void {
    for (let i = 0; i < 2 * this.#size; i++) this.#view.setUint32(P.LIST_POST + i * 4, 1000 + i, true);
    this.#plugin.post(0, 2 * this.#size);
  }

  /** Takes in one frame: its pieces, and what its entries say. */
  receive(): { bytes: Uint8Array[]; says: number[] } {
    const n = this.#plugin.rx(0, P.LIST_MAX);
    const entries = Array.from({ length: n }, (_, i) => {
      const word = (offset: number) => this.#view.getUint32(P.LIST_RX + i * P.ENTRY_BYTES + offset, true);
      const at = this.#bufferAt(word(P.ENTRY_BUFFER)) + word(P.ENTRY_OFFSET);
      return { bytes: this.#bytes.slice(at, at + word(P.ENTRY_LENGTH)), flags: word(P.ENTRY_FLAGS) };
    });
    assertEquals(entries.map(({ flags }) => (flags & P.ENTRY_EOP) !== 0), entries.map((_, i) => i === n - 1));
    return { bytes: entries.map(({ bytes }) => bytes), says: entries.map(({ flags }) => flags & ~P.ENTRY_EOP) };
  }

  // The device ---------------------------------------------------------------------------------------------------

  #take(queue: number): number | undefined {
    const head = this.#heads[queue] as number;
    const registers = P.PLUGIN_DOORBELLS + queue * A.ADV_REGISTER_STRIDE;
    if (head === this.#view.getUint32(registers + A.ADV_REG_TAIL, true)) return undefined;
    const desc = this.#view.getBigUint64(P.PLUGIN_QUEUES + queue * P.PLUGIN_QUEUE_STRIDE + P.PQ_DESC, true);
    this.#heads[queue] = (head + 1) % this.#size;
    return Number(desc - RINGS_IOVA) + P.PLUGIN_RINGS + head * A.ADV_DESC_BYTES;
  }

  /** Sends all that is in the transmit ring: frames as they lie in memory, and what their descriptors ask for. */
  transmitted(): Described[] {
    const frames: Described[] = [];
    let pieces: Uint8Array[] = [];
    let asks = { tse: false, ixsm: false, txsm: false, index: 0 };
    for (let at = this.#take(TX); at !== undefined; at = this.#take(TX)) {
      const command = this.#view.getUint32(at + 8, true);
      const status = this.#view.getUint32(at + 12, true);
      if ((command & A.ADV_TXD_DTYP_MASK) === A.ADV_TXD_DTYP_CTXT) {
        assertEquals(pieces.length, 0, "a context amid a frame");
        this.#setContext(this.#view.getUint32(at, true), command, status);
        continue;
      }
      const tse = (command & A.ADV_TXD_DCMD_TSE) !== 0;
      if (pieces.length === 0) {
        const [ixsm, txsm] = [(status & A.ADV_TXD_POPTS_IXSM) !== 0, (status & A.ADV_TXD_POPTS_TXSM) !== 0];
        asks = { tse, ixsm, txsm, index: status >> 4 & 7 };
      }
      const buffer = Number(this.#view.getBigUint64(at, true) - BUFFERS_IOVA) + P.PLUGIN_BUFFERS;
      pieces.push(this.#bytes.slice(buffer, buffer + (command & A.ADV_TXD_DTALEN_MASK)));
      if ((command & A.ADV_TXD_DCMD_EOP) === 0) continue;
      const context = { ...this.#set[asks.index], ...asks } as Context;
      frames.push({ frame: join(pieces), context });
      pieces = [];
    }
    const registers = P.PLUGIN_DOORBELLS + TX * A.ADV_REGISTER_STRIDE;
    this.#view.setUint32(registers + A.ADV_REG_HEAD, this.#heads[TX] as number, true);
    return frames;
  }

  #setContext(lengths: number, command: number, last: number): void {
    this.contexts++;
    this.#set[last >> 4 & 7] = {
      maclen: lengths >> 9 & 0x7f,
      iplen: lengths & 0x1ff,
      isIpv4: (command & A.ADV_TXC_TUCMD_IPV4) !== 0,
      l4t: command >> 11 & 3,
      l4len: last >> 8 & 0xff,
      mss: last >>> 16,
    };
  }

  /** A frame comes in from the wire, its headers apart if they have buffers of their own. */
  arrives(frame: Uint8Array, status: number): void {
    const apart = this.#headerRoom === 0 ? 0 : 42;
    for (let from = apart; from < frame.length; from += P.PLUGIN_BUFFER_BYTES) {
      const at = this.#take(RX);
      if (at === undefined) throw new Error("no receive buffer");
      const place = (iova: bigint) => Number(iova - BUFFERS_IOVA) + P.PLUGIN_BUFFERS;
      const part = frame.subarray(from, from + P.PLUGIN_BUFFER_BYTES);
      const isFirst = from === apart;
      if (isFirst && apart > 0) {
        this.#bytes.set(frame.subarray(0, apart), place(this.#view.getBigUint64(at + 8, true)));
      }
      this.#bytes.set(part, place(this.#view.getBigUint64(at, true)));
      const isLast = from + part.length === frame.length;
      const info = isFirst && apart > 0 ? (A.ADV_RXD_SPH | apart << A.ADV_RXD_HDRLEN_SHIFT) >>> 0 : 0;
      this.#view.setBigUint64(at, BigInt(info), true);
      this.#view.setUint32(at + 12, part.length, true);
      const done = isLast ? A.ADV_RXD_STAT_DD | A.ADV_RXD_STAT_EOP | status : A.ADV_RXD_STAT_DD;
      this.#view.setUint32(at + 8, done >>> 0, true);
    }
  }
}
