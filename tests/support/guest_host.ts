/**
 * The guest's IPv4 host, its Wasm alone, with the test in the place of its data path: frames that it hands over are taken
 * with what they leave to be done, and frames come in with what is said of them.
 */
import { assert, assertEquals } from "@std/assert";
import * as L from "../../shared/layout/guest.ts";
import * as P from "../../shared/layout/plugin.ts";
import { Host } from "../../services/guest/host.ts";
import { ipToNumber } from "../../services/guest/ip.ts";
import type { HostExports } from "../../services/guest/exports.ts";
import type { Machine } from "../../services/guest/machine.ts";
import { createMemfd, WasmMemory } from "../../shared/os/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import type { Sent } from "./offload_frames.ts";
import { headerBytes } from "./offload_world.ts";
import { join } from "./plugin_rig.ts";
import type { NetHeader } from "./reference_offload.ts";

const module = await loadWasm("guest");
const HEADER_BYTES = 12;
/** Room of a receive buffer, and where a frame's header begins in it: as the virtio plugin posts them. */
const RX_OFFSET = 52;

/** OFFLOAD_F_* of a data path, each way. */
export interface PathOffloads {
  tx: number;
  rx: number;
}

/** What is said of a frame that comes in. */
export interface Said {
  header?: NetHeader;
  isGood?: boolean;
}

/** One host, on the path of an injected plugin. */
export class TestHost {
  readonly memory = new WasmMemory(L.GUEST_RAM_BYTES_MIN);
  readonly wasm: HostExports;
  readonly host: Host;
  readonly ip: string;
  nowNs = 1e9;
  /** Buffers that the data path was given to fill, and those that it has to send. */
  #posted: number[] = [];
  readonly held: number[] = [];

  constructor(ip: string, mac: string, offloads: PathOffloads, mtu = 1500) {
    using ram = createMemfd("ringfabric-test", L.GUEST_RAM_BYTES_MIN);
    this.memory.map(0, ram.number, 0, L.GUEST_RAM_BYTES_MIN);
    const imports = { env: { memory: this.memory.memory } };
    this.wasm = new WebAssembly.Instance(module, imports).exports as unknown as HostExports;
    this.wasm.boot();
    this.host = new Host({ memory: this.memory, wake: () => {} } as unknown as Machine);
    this.ip = ip;
    const settings: [number, number][] = [
      ...[[L.GC_IP, ipToNumber(ip)], [L.GC_MASK, 0xffffff00], [L.GC_MTU, mtu], [L.GC_LINK, 1]] as [number, number][],
      ...[[L.GC_PATH, 1], [L.GC_QUEUE_PAIRS, 1], [L.GC_RX_WANTED, 512], [L.GC_RUNNING, 1]] as [number, number][],
    ];
    for (const [at, value] of settings) this.host.set(at, value);
    this.host.mac = mac;
    this.host.set(L.GC_ANNOUNCE, 0);
    this.host.setOffloads(1, offloads);
  }

  #list(at: number): number {
    return L.PLUGIN_AREA + L.AREA_EXCHANGE + at - P.PLUGIN_EXCHANGE;
  }

  #word(at: number): number {
    return this.memory.view.getUint32(at, true);
  }

  #bytes(at: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, at, length).slice();
  }

  #at(buffer: number): number {
    return L.BUFFERS + buffer * P.PLUGIN_BUFFER_BYTES;
  }

  /** Lets `ns` go by, with what is due then. */
  pass(ns = 1e6): void {
    this.nowNs += ns;
    this.wasm.poll(this.nowNs);
  }

  /** Takes what the host hands over at once, at most LIST_MAX buffers; `completes`: they are given back at once. */
  take(completes = true): (Sent | Uint8Array)[] {
    const n = this.wasm.prepareTx(0);
    const frames: (Sent | Uint8Array)[] = [];
    let pieces: Uint8Array[] = [];
    let header: NetHeader | undefined;
    for (let i = 0; i < n; i++) {
      const entry = this.#list(P.LIST_TX) + i * P.ENTRY_BYTES;
      const [buffer = 0, offset = 0, length = 0, flags = 0] = [0, 4, 8, 12].map((k) => this.#word(entry + k));
      assertEquals(flags & ~(P.ENTRY_EOP | P.ENTRY_NET_HDR), 0, "flags that no plugin knows");
      const at = this.#at(buffer) + offset;
      if (pieces.length === 0) {
        assert(offset >= P.TX_HEADROOM, "no room before the frame");
        header = flags & P.ENTRY_NET_HDR ? this.#header(at - HEADER_BYTES) : undefined;
      } else assertEquals(flags & P.ENTRY_NET_HDR, 0, "a header amid a frame");
      pieces.push(this.#bytes(at, length));
      this.held.push(buffer);
      if ((flags & P.ENTRY_EOP) === 0) continue;
      const frame = join(pieces);
      frames.push(header ? { frame, header } : frame);
      pieces = [];
    }
    assertEquals(this.wasm.txAccepted(0, n), 1, "whole frames");
    if (completes) this.complete();
    return frames;
  }

  #header(at: number): NetHeader {
    const view = this.memory.view;
    assertEquals(view.getUint16(at + 10, true), 0, "num_buffers");
    const [hdrLen = 0, gsoSize = 0, csumStart = 0, csumOffset = 0] = [2, 4, 6, 8].map((k) =>
      view.getUint16(at + k, true)
    );
    return { flags: view.getUint8(at), gsoType: view.getUint8(at + 1), hdrLen, gsoSize, csumStart, csumOffset };
  }

  /** Gives back the buffers of all that has been taken. */
  complete(): void {
    while (this.held.length > 0) {
      const some = this.held.splice(0, P.LIST_MAX);
      some.forEach((buffer, i) => this.memory.view.setUint32(this.#list(P.LIST_DONE) + i * 4, buffer, true));
      assertEquals(this.wasm.txCompleted(0, some.length), 1);
    }
  }

  #post(): void {
    for (let n = this.wasm.preparePost(0); n > 0; n = this.wasm.preparePost(0)) {
      for (let i = 0; i < n; i++) this.#posted.push(this.#word(this.#list(P.LIST_POST) + i * 4));
      this.wasm.posted(0, n, n);
    }
  }

  /** A frame comes in, its header `before` bytes into its first buffer; answers whether the host believes the report. */
  arrives(frame: Uint8Array, { header, isGood = false }: Said = {}, before = RX_OFFSET): boolean {
    this.#post();
    const first = before + HEADER_BYTES;
    let n = 0;
    for (let from = 0; from < frame.length; n++) {
      const offset = n === 0 ? first : before;
      const part = frame.subarray(from, from + P.PLUGIN_BUFFER_BYTES - offset);
      from += part.length;
      const buffer = this.#posted.shift();
      if (buffer === undefined) throw new Error("no receive buffer");
      new Uint8Array(this.memory.buffer).set(part, this.#at(buffer) + offset);
      if (n === 0 && header) new Uint8Array(this.memory.buffer).set(headerBytes(header), this.#at(buffer) + before);
      const says = n > 0 ? 0 : (header ? P.ENTRY_NET_HDR : 0) | (isGood ? P.ENTRY_CSUM_VALID : 0);
      const words = [buffer, offset, part.length, says | (from >= frame.length ? P.ENTRY_EOP : 0)];
      words.forEach((word, k) =>
        this.memory.view.setUint32(this.#list(P.LIST_RX) + n * P.ENTRY_BYTES + k * 4, word, true)
      );
    }
    this.memory.view.setFloat64(L.GC + L.GC_NOW_NS, this.nowNs, true);
    return this.wasm.received(0, n) !== 0;
  }

  /** Reports one entry as it is given: what no plugin of good faith does. */
  reports(offset: number, length: number, flags: number): boolean {
    this.#post();
    const buffer = this.#posted.shift() ?? 0;
    [buffer, offset, length, flags].forEach((word, k) =>
      this.memory.view.setUint32(this.#list(P.LIST_RX) + k * 4, word, true)
    );
    return this.wasm.received(0, 1) !== 0;
  }

  get counters(): Record<string, number> {
    return this.host.counters();
  }
}
