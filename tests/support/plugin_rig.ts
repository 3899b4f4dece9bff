/**
 * The virtio plugin between a shell and a device that are both the test's: the shell's books say who has each buffer,
 * and every answer of the plugin is held against them.
 */
import { assert, assertEquals } from "@std/assert";
import * as P from "../../shared/layout/plugin.ts";
import * as V from "../../shared/layout/virtio.ts";
import { OFFLOAD_FEATURES } from "../../shared/engine/offloads.ts";
import { WasmMemory } from "../../shared/os/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import { watched, watchImports } from "./watched_plugin.ts";
import { type DeviceRing, PackedRing, type RingSetup, SplitRing } from "./mock_device.ts";

/** How the device addresses rings and buffers: far apart, and beyond 32 bits. */
const RINGS_IOVA = 0x10_0000_0000n;
const BUFFERS_IOVA = 0x7f_ff00_0000n;
const BUFFERS_BYTES = P.PLUGIN_BUFFER_COUNT * P.PLUGIN_BUFFER_BYTES;

const module = await loadWasm("plugin-virtio");
// One memory for all rigs of a test process: address space is slowly given back.
const space = new WasmMemory(P.PLUGIN_MEMORY_BYTES);
const { memory } = space;

interface PluginExports {
  start(): number;
  tx(pair: number, count: number): number;
  txDone(pair: number, max: number): number;
  post(pair: number, count: number): number;
  rx(pair: number, max: number): number;
  arm(pair: number): number;
  disarm(pair: number): void;
}

/** What is negotiated. */
export interface RigFeatures {
  packed: boolean;
  inOrder: boolean;
  eventIdx: boolean;
  indirect: boolean;
  mergeable: boolean;
  /** VERSION_1: without it and without mergeable buffers the header has 10 bytes. */
  modern?: boolean;
  /** All of them. */
  offloads?: boolean;
}

/** Nothing of it: split rings, and modern. */
export const PLAIN: RigFeatures = {
  packed: false,
  inOrder: false,
  eventIdx: false,
  indirect: false,
  mergeable: false,
};

/** Every set of features, with its name. */
export function* featureSets(): Generator<[string, RigFeatures]> {
  const names = ["mergeable", "indirect", "eventIdx", "inOrder", "packed"] as const;
  for (let bits = 0; bits < 1 << names.length; bits++) {
    const on = names.filter((_, i) => bits & (1 << i)).reverse();
    const features = { ...PLAIN, ...Object.fromEntries(on.map((name) => [name, true])) };
    yield [features.packed ? on.join(" ") : ["split", ...on].join(" "), features];
  }
}

/** What else a rig may be. */
export interface RigOptions {
  pairs?: number;
  /** Runs before the plugin reads or writes a word of a ring: a moment at which a device may do something. */
  watch?: () => void;
}

/** An entry of LIST_RX. */
export interface Entry {
  buffer: number;
  offset: number;
  length: number;
  last: boolean;
  /** ENTRY_NET_HDR and ENTRY_CSUM_VALID. */
  says: number;
}

/** The features as bits. */
export function featureBits(
  { packed, inOrder, eventIdx, indirect, mergeable, modern = true, offloads = false }: RigFeatures,
): bigint {
  return (offloads ? OFFLOAD_FEATURES : 0n) | [
    [V.VIRTIO_F_VERSION_1, modern] as const,
    [V.VIRTIO_F_RING_PACKED, packed] as const,
    [V.VIRTIO_F_IN_ORDER, inOrder] as const,
    [V.VIRTIO_RING_F_EVENT_IDX, eventIdx] as const,
    [V.VIRTIO_RING_F_INDIRECT_DESC, indirect] as const,
    [V.VIRTIO_NET_F_MRG_RXBUF, mergeable] as const,
  ].reduce((bits, [bit, on]) => on ? bits | (1n << BigInt(bit)) : bits, 0n);
}

/** Where a device address lies in the plugin's memory. Throws if it is not of the rings or the buffers. */
export function translate(address: bigint, bytes: number): number {
  for (
    const [iova, at, length] of [
      [RINGS_IOVA, P.PLUGIN_RINGS, P.PLUGIN_RINGS_BYTES],
      [BUFFERS_IOVA, P.PLUGIN_BUFFERS, BUFFERS_BYTES],
    ] as const
  ) {
    const offset = address - iova;
    if (offset >= 0n && offset + BigInt(bytes) <= BigInt(length)) return at + Number(offset);
  }
  throw new Error(`the device reaches ${bytes} bytes at 0x${address.toString(16)}, which is not mapped`);
}

/** A queue's ring as the plugin has named it, for the device. */
function ringSetup(view: DataView, queue: number, features: RigFeatures): RingSetup {
  const at = P.PLUGIN_QUEUES + queue * P.PLUGIN_QUEUE_STRIDE;
  return {
    view,
    translate,
    desc: view.getBigUint64(at + P.PQ_DESC, true),
    driverArea: view.getBigUint64(at + P.PQ_AVAIL, true),
    deviceArea: view.getBigUint64(at + P.PQ_USED, true),
    size: view.getUint32(at + P.PQ_SIZE, true),
    ...features,
  };
}

/** One started plugin. */
export class PluginRig {
  readonly memory = memory;
  readonly view = new DataView(memory.buffer);
  readonly bytes = new Uint8Array(memory.buffer);
  readonly plugin: PluginExports;
  readonly hdrBytes: number;
  readonly size: number;
  /** The device's side of each queue. */
  readonly rings: DeviceRing[] = [];
  /** Queues that were kicked, in order. */
  kicks: number[] = [];
  onKick: (queue: number) => void = () => {};
  /** Whether the plugin has said that its device broke the protocol. */
  gaveUp = false;
  /** The shell's books: free buffers, and those that the plugin has, by what for. */
  free = Array.from({ length: P.PLUGIN_BUFFER_COUNT }, (_, i) => i);
  readonly sending = new Set<number>();
  readonly posted = new Set<number>();

  constructor(features: RigFeatures, size: number, { pairs = 1, watch }: RigOptions = {}) {
    space.clear(P.PLUGIN_STATE, P.PLUGIN_BUFFERS - P.PLUGIN_STATE);
    this.size = size;
    this.hdrBytes = features.modern !== false || features.mergeable
      ? V.VIRTIO_NET_HDR_BYTES
      : V.VIRTIO_NET_HDR_LEGACY_BYTES;
    const { view } = this;
    view.setUint32(P.PLUGIN_STATE + P.PC_QUEUE_PAIRS, pairs, true);
    view.setUint32(P.PLUGIN_STATE + P.PC_RING_SIZE, size, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_FEATURES, featureBits(features), true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_RINGS_IOVA, RINGS_IOVA, true);
    view.setBigUint64(P.PLUGIN_STATE + P.PC_BUFFERS_IOVA, BUFFERS_IOVA, true);
    const notify = (queue: number) => {
      this.kicks.push(queue);
      this.onKick(queue);
    };
    const code = watch ? watched() : module;
    const imports = { env: { memory, ...(watch ? watchImports(code, watch) : {}) }, shell: { notify } };
    this.plugin = new WebAssembly.Instance(code, imports).exports as unknown as PluginExports;
    assertEquals(this.plugin.start(), 0, "the plugin starts");
    const Ring = features.packed ? PackedRing : SplitRing;
    for (let queue = 0; queue < pairs * 2; queue++) {
      const setup = ringSetup(view, queue, features);
      assertEquals(setup.size, size);
      this.rings.push(new Ring(setup));
    }
  }

  /** Which features the plugin has taken up. */
  get accepted(): bigint {
    return this.view.getBigUint64(P.PLUGIN_STATE + P.PC_ACCEPTED, true);
  }

  /** Room in a receive buffer, its header included. */
  get rxBytes(): number {
    return P.PLUGIN_BUFFER_BYTES - (64 - this.hdrBytes);
  }

  bufferAt(buffer: number): number {
    return P.PLUGIN_BUFFERS + buffer * P.PLUGIN_BUFFER_BYTES;
  }

  /** Puts frames, each in pieces, into LIST_TX, some behind a header; answers how many entries that is. */
  listFrames(frames: readonly Uint8Array[][], headers: readonly (Uint8Array | undefined)[] = []): number {
    let n = 0;
    for (const [k, pieces] of frames.entries()) {
      const header = headers[k];
      pieces.forEach((piece, i) => {
        const buffer = this.free[n] as number;
        const offset = i === 0 ? P.TX_HEADROOM : 0;
        // What was there before is not a header of zeros.
        this.bytes.fill(0xee, this.bufferAt(buffer), this.bufferAt(buffer) + P.TX_HEADROOM);
        this.bytes.set(piece, this.bufferAt(buffer) + offset);
        if (header && i === 0) this.bytes.set(header, this.bufferAt(buffer) + offset - header.length);
        const flags = (i === pieces.length - 1 ? P.ENTRY_EOP : 0) | (header && i === 0 ? P.ENTRY_NET_HDR : 0);
        const words = [buffer, offset, piece.length, flags];
        words.forEach((word, k) => this.view.setUint32(P.LIST_TX + n * P.ENTRY_BYTES + k * 4, word, true));
        n++;
      });
    }
    return n;
  }

  /** Has the plugin send frames; answers how many whole ones it took. */
  send(frames: readonly Uint8Array[][], pair = 0, headers: readonly (Uint8Array | undefined)[] = []): number {
    const taken = this.plugin.tx(pair, this.listFrames(frames, headers));
    for (const buffer of this.free.splice(0, taken)) this.sending.add(buffer);
    let whole = 0;
    for (let entries = 0; entries < taken; whole++) entries += (frames[whole] as Uint8Array[]).length;
    assertEquals(frames.slice(0, whole).flat().length, taken, "half a frame was taken");
    return whole;
  }

  /** Takes back what has been sent; answers the buffers, NO_BUFFER among them if the plugin gave up. */
  done(max: number, pair = 0): number[] {
    const n = this.plugin.txDone(pair, max);
    assert(n <= max, `txDone reported ${n} of at most ${max}`);
    const buffers = Array.from({ length: n }, (_, i) => this.view.getUint32(P.LIST_DONE + i * 4, true));
    for (const buffer of buffers) this.#giveBack(this.sending, buffer);
    return buffers;
  }

  #giveBack(from: Set<number>, buffer: number): void {
    if (buffer === P.NO_BUFFER) {
      this.gaveUp = true;
      return;
    }
    assert(from.delete(buffer), `buffer ${buffer} is reported, which the plugin did not have`);
    this.free.push(buffer);
  }

  /** Gives the plugin buffers to be filled; answers how many it took. */
  post(count: number, pair = 0): number {
    for (let i = 0; i < count; i++) this.view.setUint32(P.LIST_POST + i * 4, this.free[i] as number, true);
    const taken = this.plugin.post(pair, count);
    for (const buffer of this.free.splice(0, taken)) this.posted.add(buffer);
    return taken;
  }

  /** Takes in what has come; entries as they are, NO_BUFFER among them if the plugin gave up. */
  entries(max: number, pair = 0): Entry[] {
    const n = this.plugin.rx(pair, max);
    assert(n <= max, `rx reported ${n} of at most ${max}`);
    return Array.from({ length: n }, (_, i) => {
      const at = P.LIST_RX + i * P.ENTRY_BYTES;
      const [buffer = 0, offset = 0, length = 0, flags = 0] = [0, 4, 8, 12].map((k) =>
        this.view.getUint32(at + k, true)
      );
      this.#giveBack(this.posted, buffer);
      if (buffer !== P.NO_BUFFER) assert(offset + length <= P.PLUGIN_BUFFER_BYTES, `${length} bytes at ${offset}`);
      return { buffer, offset, length, last: (flags & P.ENTRY_EOP) !== 0, says: flags & ~P.ENTRY_EOP };
    });
  }

  /** Takes in whole frames. */
  receive(max: number, pair = 0): Uint8Array[] {
    const frames: Uint8Array[] = [];
    let parts: Uint8Array[] = [];
    for (const { buffer, offset, length, last } of this.entries(max, pair)) {
      assert(buffer !== P.NO_BUFFER, "the plugin gave up on an honest device");
      parts.push(this.bytes.slice(this.bufferAt(buffer) + offset, this.bufferAt(buffer) + offset + length));
      if (!last) continue;
      frames.push(join(parts));
      parts = [];
    }
    assertEquals(parts.length, 0, "half a frame was reported");
    return frames;
  }
}

/** One array of many. */
export function join(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Throws unless two frames are the same. */
export function sameBytes(found: Uint8Array, wanted: Uint8Array | undefined, what: string): void {
  assertEquals(found.length, wanted?.length, `${what}: its length`);
  for (let i = 0; i < found.length; i++) {
    if (found[i] !== wanted?.[i]) throw new Error(`${what}: byte ${i} of ${found.length} is another`);
  }
}
