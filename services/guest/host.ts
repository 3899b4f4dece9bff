/**
 * The IPv4 host as the control thread sees it: configuration, counters, pings, generators, flows. All of it lies in the
 * guest's RAM (shared/layout/guest.ts); the worker picks up what is written here when it is woken.
 */
import * as L from "../../shared/layout/guest.ts";
import {
  ApiError,
  type FlowState,
  type GeneratorState,
  type PingResult,
  type TrafficRequest,
} from "../../shared/api/mod.ts";
import { monotonicNs } from "../../shared/os/mod.ts";
import { flowStates } from "./flows.ts";
import { ipFromNumber, ipToNumber } from "./ip.ts";
import type { Machine } from "./machine.ts";

const COUNTER_NAMES = [
  "rx_frames",
  "rx_bytes",
  "tx_frames",
  "tx_bytes",
  "rx_not_mine",
  "rx_bad",
  "rx_checksum",
  "tx_no_buffer",
  "arp_requests",
  "arp_replies",
  "icmp_echoes",
  "udp_echoes",
  "udp_rx",
  "plugin_faults",
  "tx_lost",
  "tx_unsummed",
  "tx_large",
  "rx_unsummed",
  "rx_large",
] as const;

const POLL_MS = 2;
const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const ICMP_BYTES = 8;

function macToNumber(mac: string): bigint {
  return mac.split(":").reduceRight((n, byte) => (n << 8n) | BigInt(parseInt(byte, 16)), 0n);
}

/** What a ping is asked to do. */
export interface PingOptions {
  to: string;
  count: number;
  intervalMs: number;
  timeoutMs: number;
  size: number;
}

/** Reads and writes the host's part of the guest's RAM. */
export class Host {
  readonly #machine: Machine;
  readonly #view: DataView;
  readonly #words: Int32Array;
  #isStill = false;
  /** Counts the guests that have left. */
  #left = 0;
  #nextId = Math.floor(Math.random() * 0x8000);

  constructor(machine: Machine) {
    this.#machine = machine;
    this.#view = machine.memory.view;
    this.#words = new Int32Array(machine.memory.buffer);
  }

  get(offset: number): number {
    return this.#view.getUint32(L.GC + offset, true);
  }

  set(offset: number, value: number): void {
    Atomics.store(this.#words, (L.GC + offset) / 4, value);
    this.#machine.wake();
  }

  /** The guest stands still, or there is none: no frame is handed to the data path. */
  set isStill(still: boolean) {
    this.#isStill = still;
    if (still) this.set(L.GC_RUNNING, 0);
  }

  /** Lets frames be handed to the data path, unless the guest stands still. */
  allowTx(): void {
    if (!this.#isStill) this.set(L.GC_RUNNING, 1);
  }

  /** The address that the guest's frames carry. */
  get mac(): string {
    const n = this.#view.getBigUint64(L.GC + L.GC_MAC, true);
    return Array.from({ length: 6 }, (_, i) => Number((n >> BigInt(8 * i)) & 0xffn).toString(16).padStart(2, "0")).join(
      ":",
    );
  }

  set mac(mac: string) {
    this.#view.setBigUint64(L.GC + L.GC_MAC, macToNumber(mac), true);
    this.announce();
  }

  /** Tells the neighbours where the guest is. */
  announce(): void {
    this.set(L.GC_ANNOUNCE, 1);
  }

  /** The guest has left: whoever waits for something in its RAM waits in vain. */
  forget(): void {
    this.#left++;
  }

  counters(): Record<string, number> {
    return Object.fromEntries(
      COUNTER_NAMES.map((name, i) => [name, Number(this.#view.getBigUint64(L.GC + L.GC_COUNTERS + i * 8, true))]),
    );
  }

  #claim(base: number, stride: number, count: number, what: string): number {
    for (let i = 0; i < count; i++) {
      const at = base + i * stride;
      if (Atomics.load(this.#words, at / 4) !== L.STATE_RUNNING && !this.#taken.has(at)) return at;
    }
    throw new ApiError(409, `${count} ${what} run already; wait for one to end, or stop one`);
  }

  readonly #taken = new Set<number>();

  /** Says what data path `path` does for the host, and what it leaves to it. It is not in use, or at rest. */
  setOffloads(path: 0 | 1, { tx, rx }: { tx: number; rx: number }): void {
    this.set(L.GC_TX_OFFLOADS + path * 4, tx);
    this.set(L.GC_RX_OFFLOADS + path * 4, rx);
  }

  /** What the data path in use does for the host, and what it leaves to it. */
  get offloads(): { tx: number; rx: number } {
    const path = this.get(L.GC_PATH);
    return { tx: this.get(L.GC_TX_OFFLOADS + path * 4), rx: this.get(L.GC_RX_OFFLOADS + path * 4) };
  }

  /** Buffers that the data path in use has to send. */
  get txHeld(): number {
    let held = 0;
    for (let pair = 0; pair < this.get(L.GC_QUEUE_PAIRS); pair++) {
      held += this.get(L.GC_PAIRS + pair * L.PAIR_STRIDE + L.PAIR_TX_HELD);
    }
    return held;
  }

  /** Throws if a packet of `bytes` bytes, IPv4 header included, would need fragments. */
  #mustFit(bytes: number, room: number): void {
    const mtu = this.get(L.GC_MTU);
    if (bytes > mtu) throw new ApiError(422, `size is ${room - bytes + mtu} at most: the MTU is ${mtu}`, "size");
  }

  /** Pings a host; resolves when every answer has come or is late. */
  async ping({ to, count, intervalMs, timeoutMs, size }: PingOptions): Promise<PingResult> {
    this.#mustFit(size + IPV4_BYTES + ICMP_BYTES, size);
    const at = this.#claim(L.PINGS, L.PING_STRIDE, L.PING_COUNT, "pings");
    this.#taken.add(at);
    const left = this.#left;
    try {
      const view = this.#view;
      new Uint8Array(this.#machine.memory.buffer, at, L.PING_RESULTS).fill(0);
      view.setUint32(at + L.PING_TO, ipToNumber(to), true);
      view.setUint32(at + L.PING_WANTED, count, true);
      view.setUint32(at + L.PING_BYTES, size, true);
      view.setUint32(at + L.PING_ID, this.#nextId = (this.#nextId + 1) & 0xffff, true);
      view.setFloat64(at + L.PING_INTERVAL_NS, intervalMs * 1e6, true);
      view.setFloat64(at + L.PING_TIMEOUT_NS, timeoutMs * 1e6, true);
      view.setFloat64(at + L.PING_NEXT_NS, monotonicNs(), true);
      Atomics.store(this.#words, at / 4, L.STATE_RUNNING);
      this.#machine.wake();
      while (Atomics.load(this.#words, at / 4) === L.STATE_RUNNING) {
        await new Promise((done) => setTimeout(done, POLL_MS));
      }
      if (left !== this.#left) throw new ApiError(409, "the guest has moved to another host: the ping goes on there");
      return this.#pingResult(at, to, count);
    } finally {
      this.#taken.delete(at);
    }
  }

  #pingResult(at: number, to: string, count: number): PingResult {
    const rtts = Array.from({ length: count }, (_, i) => this.#view.getFloat64(at + L.PING_RESULTS + i * 8, true))
      .map((ns) => ns < 0 ? null : Math.round(ns / 100) / 10);
    const answered = rtts.filter((rtt) => rtt !== null);
    const received = answered.length;
    return {
      to,
      sent: this.#view.getUint32(at + L.PING_SENT, true),
      received,
      lost: count - received,
      duplicates: this.#view.getUint32(at + L.PING_DUPLICATES, true),
      rttUs: rtts,
      ...(received === 0 ? {} : {
        minUs: Math.min(...answered),
        avgUs: Math.round(answered.reduce((sum, rtt) => sum + rtt, 0) / received * 10) / 10,
        maxUs: Math.max(...answered),
      }),
    };
  }

  // Traffic --------------------------------------------------------------------------------------------------

  /** Starts a generator; answers its number. */
  startTraffic(request: TrafficRequest): GeneratorState {
    this.#mustFit(request.size - ETHERNET_BYTES, request.size);
    const at = this.#claim(L.GENERATORS, L.GENERATOR_STRIDE, L.GENERATOR_COUNT, "generators");
    const view = this.#view;
    const now = monotonicNs();
    const id = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
    new Uint8Array(this.#machine.memory.buffer, at, L.GENERATOR_STRIDE).fill(0);
    view.setUint32(at + L.GEN_TO, ipToNumber(request.to), true);
    view.setUint32(at + L.GEN_SOURCE_PORT, 49152 + (id & 0x3fff), true);
    view.setUint32(at + L.GEN_PORT, request.echo ? L.UDP_ECHO_PORT : request.port, true);
    view.setUint32(at + L.GEN_BYTES, request.size, true);
    view.setUint32(at + L.GEN_FLOW, id, true);
    view.setUint32(at + L.GEN_SEGMENT, request.segment ? 1 : 0, true);
    view.setUint32(at + L.GEN_WINDOW, request.echo ? request.window ?? 0 : 0, true);
    view.setBigUint64(at + L.GEN_WANTED, BigInt(request.count ?? 0), true);
    view.setFloat64(at + L.GEN_RATE, request.rate / 1e9, true);
    view.setFloat64(at + L.GEN_BEGAN_NS, now, true);
    view.setFloat64(at + L.GEN_NEXT_NS, now, true);
    view.setFloat64(at + L.GEN_ENDS_NS, request.seconds === undefined ? 0 : now + request.seconds * 1e9, true);
    Atomics.store(this.#words, at / 4, L.STATE_RUNNING);
    this.#machine.wake();
    return this.#generator(at);
  }

  #generator(at: number): GeneratorState {
    const view = this.#view;
    const began = view.getFloat64(at + L.GEN_BEGAN_NS, true);
    const sent = Number(view.getBigUint64(at + L.GEN_SENT, true));
    const seconds = Math.max(0, view.getFloat64(at + L.GEN_LAST_NS, true) - began) / 1e9;
    return {
      id: (at - L.GENERATORS) / L.GENERATOR_STRIDE,
      flow: view.getUint32(at + L.GEN_FLOW, true),
      state: view.getUint32(at, true) === L.STATE_RUNNING ? "running" : "done",
      to: ipFromNumber(view.getUint32(at + L.GEN_TO, true)),
      size: view.getUint32(at + L.GEN_BYTES, true),
      segment: view.getUint32(at + L.GEN_SEGMENT, true) !== 0,
      rate: Math.round(view.getFloat64(at + L.GEN_RATE, true) * 1e9),
      sent,
      sentRate: seconds > 0 ? Math.round(sent / seconds) : 0,
    };
  }

  /** All generators that have been started and whose places are not used again. */
  generators(): GeneratorState[] {
    return Array.from({ length: L.GENERATOR_COUNT }, (_, i) => L.GENERATORS + i * L.GENERATOR_STRIDE)
      .filter((at) => this.#view.getUint32(at, true) !== L.STATE_FREE).map((at) => this.#generator(at));
  }

  /** Stops a generator; what it answers is all that was sent. */
  async stopTraffic(id: number): Promise<GeneratorState> {
    const at = L.GENERATORS + id * L.GENERATOR_STRIDE;
    if (id >= L.GENERATOR_COUNT || this.#view.getUint32(at, true) === L.STATE_FREE) {
      throw new ApiError(404, `there is no generator ${id}`, "id");
    }
    Atomics.store(this.#words, at / 4, L.STATE_DONE);
    // The worker may be in the midst of a burst.
    await this.#machine.ask({ op: "settle" });
    return this.#generator(at);
  }

  /** What has come in of other guests' generators, or back to one's own. */
  flows(): FlowState[] {
    return flowStates(this.#view);
  }

  /** Forgets all flows. */
  clearFlows(): void {
    for (let i = 0; i < L.FLOW_COUNT; i++) {
      Atomics.store(this.#words, (L.FLOWS + i * L.FLOW_STRIDE) / 4, L.STATE_FREE);
    }
  }
}
