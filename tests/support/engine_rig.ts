/**
 * The engine in the test's own thread over a plain arena: no worker, no sockets. Pools are programmed by the
 * NIC's own code, guests are mocks, and `run` polls once. Between the guests' memories lie canaries.
 */
import {
  CTL,
  CTL_CALL_COUNT,
  CTL_COOL_NS,
  CTL_GENERATION,
  DOMAIN_STRIDE,
  DOMAINS,
  HEAT_COLD,
  P_REGION_COUNT,
  P_RX_COUNT,
  P_RX_QUEUES,
  PERM_READ,
  PERM_WRITE,
  POOL_STRIDE,
  POOL_UPLINK,
  POOLS,
  Q_CALL_PENDING,
  Q_ERROR,
  Q_HEAT,
  Q_STATE,
  QUEUE_ERROR,
  QUEUE_F_INDIRECT,
  QUEUE_STRIDE,
  QUEUES,
  QUEUES_PER_POOL,
  REGION_IOVA,
  REGION_PERM,
  REGION_SIZE,
  REGION_STRIDE,
  REGION_WINDOW,
  REGISTER_PAGES,
  WINDOWS,
} from "../../shared/layout/nic.ts";
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import type { Programme, VfPolicy } from "../../shared/api/mod.ts";
import { defaultPolicy } from "../../shared/api/policy.ts";
import { ARENA_BYTES, WasmMemory } from "../../shared/os/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import { writeActive } from "../../shared/engine/active_list.ts";
import { Pools } from "../../shared/engine/pools.ts";
import type { NicExports } from "../../services/nic/exports.ts";
import { AdvancedGuest } from "./advanced_guest.ts";
import {
  describeAdvanced,
  describeVirtqueue,
  driverOptions,
  type FormatName,
  type VirtqueueName,
  VIRTQUEUES,
} from "./formats.ts";
import type { MockGuest } from "./mock_guest.ts";
import type { PackedGuest, PackedGuestOptions } from "./packed_guest.ts";
import { sameBytes } from "./same_bytes.ts";
import type { GuestOptions } from "./virtio_guest.ts";

const GUEST_STRIDE = 16 * 1024 ** 2;
const GUEST_BYTES = 4 * 1024 ** 2;
const CANARY_BYTES = 64 * 1024;
const CANARY = 0xa5;
const CANARIES = new Uint8Array(CANARY_BYTES).fill(CANARY);
/** How long an idle queue is polled, where many are. */
const COOL_NS = 200_000;

const module = await loadWasm("engine");
// One memory for all rigs of a test process: a Wasm memory of 4 GiB is quickly reserved and slowly given back. What a rig
// begins with is new pages, of which most are never touched: to write zeros over them costs more than most tests.
const arena = new WasmMemory(ARENA_BYTES);
const { memory } = arena;

/** Where the canaries around `bytes` bytes at `offset` lie. */
function canariesOf(offset: number, bytes: number): [number, number] {
  return [offset - CANARY_BYTES, offset + bytes];
}

/** Where a guest's queues are in the engine's tables. */
interface Attached {
  pool: number;
  queuePointer(index: number): number;
}

/** Guests of the rig: with split rings, with packed ones, with advanced ones. */
export type RigGuest = MockGuest & Attached;
export type PackedRigGuest = PackedGuest & Attached;
export type AdvancedRigGuest = AdvancedGuest & Attached;
/** A guest of the rig with virtqueues, whatever their format. */
export type VirtioRigGuest = RigGuest | PackedRigGuest;
/** A guest of the rig, whatever its rings. */
export type AnyRigGuest = VirtioRigGuest | AdvancedRigGuest;

/** MAC of VF `vf` in rigs. */
export function rigMac(vf: number): string {
  return `02:00:00:00:00:${(vf + 1).toString(16).padStart(2, "0")}`;
}

/** An engine over the rigs' memory. `now`: its clock. */
export function engineInstance(now = () => performance.now() * 1e6): NicExports {
  const imports = { env: { memory, now } };
  return new WebAssembly.Instance(module, imports).exports as unknown as NicExports;
}

/** The engine and its guests. */
export class EngineRig {
  readonly view = new DataView(memory.buffer);
  readonly wasm: NicExports;
  readonly pools: Pools;
  readonly guests = new Map<number, AnyRigGuest>();
  nowNs = 1e9;
  /** Whether the engine's clock stands still but for `nowNs`; else it goes on by what its passes take. */
  isClockStill = false;
  /** Called whenever the engine reads its clock: a driver on another CPU may do anything meanwhile. */
  onClock: () => void = () => {};
  #ranMs = performance.now();
  #programme: Programme;
  readonly #firstSlot: number;

  /** `firstSlot`: where its guests' memory begins, for rigs beside each other. */
  constructor(vfs: number, policies: Record<number, Partial<VfPolicy>> = {}, firstSlot = 0) {
    this.#firstSlot = firstSlot;
    arena.clear(CTL, WINDOWS - CTL);
    this.wasm = engineInstance(() => this.#now());
    this.view.setFloat64(CTL + CTL_COOL_NS, COOL_NS, true);
    const access = {
      view: this.view,
      arena: { buffer: memory.buffer as unknown as SharedArrayBuffer },
      wasm: this.wasm,
      between: <T>(change: () => T): T => {
        const result = change();
        this.view.setUint32(CTL + CTL_GENERATION, this.view.getUint32(CTL + CTL_GENERATION, true) + 1, true);
        return result;
      },
    };
    // The same addresses collide in every run of a test.
    this.pools = new Pools(access, 0x5eedn);
    this.#programme = {
      switchMode: "veb",
      link: "up",
      pfMac: "02:00:00:00:00:ff",
      vports: [],
      vfs: Array.from({ length: vfs }, (_, vf) => ({
        ...defaultPolicy(rigMac(vf)),
        fallback: "none" as const,
        ...policies[vf],
      })),
    };
    this.pools.apply(this.#programme);
  }

  #now(): number {
    this.onClock();
    return this.isClockStill ? this.nowNs : this.nowNs + (performance.now() - this.#ranMs) * 1e6;
  }

  /** Changes policy while it runs. */
  set(vf: number, policy: Partial<VfPolicy>): void {
    const next = { ...(this.#programme.vfs[vf] as Programme["vfs"][number]), ...policy };
    this.#programme = { ...this.#programme, vfs: this.#programme.vfs.with(vf, next) };
    this.pools.apply(this.#programme);
  }

  /** Changes the NIC while it runs. */
  setNic(change: Partial<Programme>): void {
    this.#programme = { ...this.#programme, ...change };
    this.pools.apply(this.#programme);
  }

  /** Bytes of a guest's memory, and of each canary. */
  static readonly guestBytes = GUEST_BYTES;
  static readonly canaryBytes = CANARY_BYTES;

  /** Where the memory of the guest in slot `slot` begins. */
  static guestOffset(slot: number): number {
    return WINDOWS + slot * GUEST_STRIDE + CANARY_BYTES;
  }

  /** Attaches a guest with split rings to a pool, all queues running. `flags` are QUEUE_F_*. */
  attach(pool: number, options: Partial<GuestOptions> = {}, flags = QUEUE_F_INDIRECT): RigGuest {
    return this.attachVirtqueues("split", pool, options, flags) as RigGuest;
  }

  /** As `attach`, with packed rings. */
  attachPacked(pool: number, options: Partial<PackedGuestOptions> = {}, flags = QUEUE_F_INDIRECT): PackedRigGuest {
    return this.attachVirtqueues("packed", pool, options, flags) as PackedRigGuest;
  }

  /** As `attach`, with virtqueues of any format. */
  attachVirtqueues(
    name: VirtqueueName,
    pool: number,
    options: Partial<PackedGuestOptions> = {},
    flags = QUEUE_F_INDIRECT,
  ): VirtioRigGuest {
    const format = VIRTQUEUES[name];
    const all = flags | format.flags;
    const made = format.make(this.view, { ...this.#memory(), ...driverOptions(all), ...options });
    const guest = this.#adopt(pool, made);
    guest.queues.forEach((_, index) => {
      this.#start(
        index,
        describeVirtqueue(this.view, { at: guest.queuePointer(index), pool, index }, guest, all),
        guest,
      );
    });
    this.#lists();
    return guest;
  }

  /** Attaches a guest with advanced rings. `headerBytes`: its headers go into buffers of their own. */
  attachAdvanced(pool: number, options: Partial<GuestOptions> = {}, headerBytes = 0): AdvancedRigGuest {
    const registers = REGISTER_PAGES + pool * ADV_PAGE_BYTES;
    const made = new AdvancedGuest(this.view, this.view, registers, { ...this.#memory(), ...options });
    const guest = this.#adopt(pool, made);
    guest.rings.forEach((_, index) => {
      const entry = { at: guest.queuePointer(index), pool, index };
      this.#start(index, describeAdvanced(this.view, entry, guest, headerBytes), guest);
    });
    this.#lists();
    return guest;
  }

  /** Attaches a guest of any format. */
  attachAs(
    name: FormatName,
    pool: number,
    options: Partial<PackedGuestOptions> = {},
    flags = QUEUE_F_INDIRECT,
  ): AnyRigGuest {
    return name === "advanced" ? this.attachAdvanced(pool, options) : this.attachVirtqueues(name, pool, options, flags);
  }

  /** Makes a guest the rig's: its memory is its pool's whole domain. */
  #adopt<G extends MockGuest | PackedGuest | AdvancedGuest>(pool: number, made: G): G & Attached {
    const queuePointer = (index: number) => QUEUES + (pool * QUEUES_PER_POOL + index) * QUEUE_STRIDE;
    const guest = Object.assign(made, { pool, queuePointer });
    this.guests.set(pool, guest);
    const { iova, bytes, offset } = guest.options;
    this.setRegions(pool, [{ iova, size: bytes, window: offset }]);
    return guest;
  }

  #start(index: number, position: number, guest: AnyRigGuest): void {
    const verdict = this.wasm.startQueue(guest.queuePointer(index), position);
    if (verdict === 0) return;
    this.guests.delete(guest.pool);
    throw new Error(`queue ${index} did not start: ${verdict}`);
  }

  /** Memory for one more guest, with canaries around it. Different guests use the same addresses, as real ones do. */
  #memory(): { offset: number; bytes: number; iova: bigint } {
    const offset = EngineRig.guestOffset(this.#firstSlot + this.guests.size);
    arena.clear(offset, GUEST_BYTES);
    this.guard(offset);
    return { offset, bytes: GUEST_BYTES, iova: 0x4000_0000n };
  }

  /** Attaches a guest to the uplink. */
  attachUplink(options: Partial<GuestOptions> = {}): RigGuest {
    return this.attach(POOL_UPLINK, options);
  }

  /** Replaces a pool's memory table. */
  setRegions(pool: number, regions: { iova: bigint; size: number; window: number; perm?: number }[]): void {
    const sorted = regions.toSorted((a, b) => a.iova < b.iova ? -1 : 1);
    sorted.forEach(({ iova, size, window, perm = PERM_READ | PERM_WRITE }, i) => {
      const at = DOMAINS + pool * DOMAIN_STRIDE + i * REGION_STRIDE;
      this.view.setBigUint64(at + REGION_IOVA, iova, true);
      this.view.setBigUint64(at + REGION_SIZE, BigInt(size), true);
      this.view.setUint32(at + REGION_WINDOW, window, true);
      this.view.setUint32(at + REGION_PERM, perm, true);
    });
    this.view.setUint32(POOLS + pool * POOL_STRIDE + P_REGION_COUNT, regions.length, true);
    const guest = this.guests.get(pool);
    for (let index = 0; guest && index < guest.options.queuePairs * 2; index++) {
      this.wasm.forgetRegions(guest.queuePointer(index));
    }
  }

  #lists(): void {
    const active: number[] = [];
    for (const guest of this.guests.values()) {
      const at = POOLS + guest.pool * POOL_STRIDE;
      const { queuePairs } = guest.options;
      for (let index = 0; index < queuePairs * 2; index++) {
        if (index % 2 === 1) active.push(guest.queuePointer(index));
        else this.view.setUint32(at + P_RX_QUEUES + index * 2, guest.queuePointer(index), true);
      }
      this.view.setUint32(at + P_RX_COUNT, queuePairs, true);
    }
    writeActive(this.view, active);
    this.view.setUint32(CTL + CTL_GENERATION, this.view.getUint32(CTL + CTL_GENERATION, true) + 1, true);
  }

  /** Polls all queues up to `passes` times, time going on by `stepNs`. Interrupts that were asked for are taken. */
  run(passes = 200, stepNs = 1000): void {
    this.nowNs += stepNs;
    this.#ranMs = performance.now();
    this.kick();
    for (let done = 0; done < passes; done += 10) {
      this.wasm.run(this.nowNs, 10);
      this.takeCalls();
    }
  }

  /** Kicks for every queue that has work and is not polled, as its driver would. */
  kick(): void {
    for (const guest of this.guests.values()) {
      for (let index = 1; index < guest.options.queuePairs * 2; index += 2) {
        const queue = guest.queuePointer(index);
        if (this.view.getUint32(queue + Q_HEAT, true) === HEAT_COLD && this.wasm.hasWork(queue)) this.wasm.heat(queue);
      }
    }
  }

  /** Takes the interrupts that the engine wants raised: how many queues. */
  takeCalls(): number {
    const count = this.view.getUint32(CTL + CTL_CALL_COUNT, true);
    for (const guest of this.guests.values()) {
      for (let index = 0; index < guest.options.queuePairs * 2; index++) {
        this.view.setUint32(guest.queuePointer(index) + Q_CALL_PENDING, 0, true);
      }
    }
    this.view.setUint32(CTL + CTL_CALL_COUNT, 0, true);
    return count;
  }

  /** Why a queue stopped, 0 if it runs. */
  error(pool: number, index: number): number {
    const at = this.guests.get(pool)?.queuePointer(index) ?? 0;
    if (this.view.getUint32(at + Q_STATE, true) !== QUEUE_ERROR) return 0;
    return this.view.getUint32(at + Q_ERROR, true);
  }

  counters(pool: number): Record<string, number> {
    return this.pools.counters(pool);
  }

  /** Puts canaries around `bytes` bytes at `offset`. */
  guard(offset: number, bytes = GUEST_BYTES): void {
    for (const at of canariesOf(offset, bytes)) new Uint8Array(arena.buffer, at, CANARY_BYTES).set(CANARIES);
  }

  /** Throws if a byte beside the guarded `bytes` bytes at `offset` has changed. */
  checkGuard(offset: number, bytes = GUEST_BYTES): void {
    for (const at of canariesOf(offset, bytes)) {
      const found = new Uint8Array(arena.buffer, at, CANARY_BYTES);
      if (sameBytes(found, CANARIES)) continue;
      const bad = found.findIndex((byte) => byte !== CANARY);
      throw new Error(`beside ${offset}: the byte at arena offset ${at + bad} was overwritten`);
    }
  }

  /** Throws if a byte beside any guest's memory has changed. */
  checkCanaries(): void {
    for (let slot = 0; slot < this.guests.size; slot++) this.checkGuard(EngineRig.guestOffset(this.#firstSlot + slot));
  }
}

/** All formats of virtqueues, and all formats. */
export const VIRTQUEUE_FORMATS = Object.keys(VIRTQUEUES) as VirtqueueName[];
export const FORMATS: readonly FormatName[] = [...VIRTQUEUE_FORMATS, "advanced"];
