/**
 * What lies around the rings of the fuzzer's guests: dirty logs, inflight memory, packet buffers, captures and mirrors,
 * regions of every kind at addresses of every kind. Much of it hostile guests can write too, since it lies in memory that
 * their front-ends share. All of it has canaries around it.
 */
import { INFLIGHT_PACKED_POSITION, INFLIGHT_VERSION } from "../../shared/layout/inflight.ts";
import * as L from "../../shared/layout/nic.ts";
import { type Capture, Captures, PoolBuffer } from "../../shared/engine/mod.ts";
import type { Arena } from "../../shared/os/mod.ts";
import { asked } from "../support/capture_rig.ts";
import { type AnyRigGuest, EngineRig } from "../support/engine_rig.ts";
import type { Random } from "./random.ts";

/** Behind a guest's memory in its slot: read-only memory, the log, inflight memory; each with a canary behind it. */
const READ_ONLY_AT = 5 * 1024 ** 2;
const READ_ONLY_BYTES = 65536;
const LOG_AT = 6 * 1024 ** 2;
const LOG_BYTES_MAX = 65536;
const INFLIGHT_AT = 7 * 1024 ** 2;
const INFLIGHT_BYTES = 4096;
const SECOND_AT = 8 * 1024 ** 2;
const SECOND_BYTES = 1024 ** 2;
/** Slots of packet buffers and captures, behind those of guests. */
export const FIRST_SLOT = 16;
export const SLOTS_MAX = 44;
const FILTERS = ["", "tcp", "udp port 53 or arp", "vlan 2 and not ip6", "dropped", "ether host 02:00:00:00:00:03"];

/** Addresses at which a guest's memory begins, so that it ends at a boundary or lies across it. */
export function anyIova(random: Random, bytes: number): bigint {
  const end = random.pick([1n << 31n, 1n << 32n, 1n << 47n, 1n << 52n, 1n << 64n]);
  const back = random.pick([BigInt(bytes), BigInt(bytes), 65536n * BigInt(random.below(bytes / 65536))]);
  return random.pick([0n, 4096n, 0x4000_0000n, 0x4000_0000n, end === 1n << 64n ? end - BigInt(bytes) : end - back]);
}

/** A hostile guest and what belongs to it beside its memory. */
interface Owner {
  guest: AnyRigGuest;
  readOnlyIova: bigint;
  secondIova: bigint;
  inflightIova: bigint;
  hasLog: boolean;
}

export class Surroundings {
  readonly #rig: EngineRig;
  readonly #random: Random;
  readonly #owners: Owner[];
  /** What of it lies between canaries. */
  readonly guarded: { at: number; bytes: number }[] = [];
  readonly #buffers: PoolBuffer[] = [];
  readonly #captures: Captures;
  readonly #open: Capture[] = [];
  #slot = FIRST_SLOT;
  /** Told when the control side has changed the engine's state. */
  onChange: () => void = () => {};

  constructor(rig: EngineRig, random: Random, hostile: readonly AnyRigGuest[], others: readonly AnyRigGuest[]) {
    this.#rig = rig;
    this.#random = random;
    this.#owners = hostile.map((guest) => this.#surround(guest));
    const allocate = (bytes: number) => this.#allocate(bytes);
    const arena = { buffer: rig.view.buffer, allocate, allocateOwn: allocate, release() {}, releaseOwn() {} };
    const engine = { arena: arena as unknown as Arena, view: rig.view, wasm: rig.wasm, between: this.#between };
    for (const { pool } of [...hostile, ...others]) {
      if (random.chance(2)) continue;
      const buffer = new PoolBuffer(engine, pool);
      buffer.give(random.pick([256, 1024]));
      this.#buffers.push(buffer);
    }
    this.#captures = new Captures(engine);
  }

  readonly #between = <T>(change: () => T): T => {
    const result = change();
    const { view } = this.#rig;
    view.setUint32(L.CTL + L.CTL_GENERATION, view.getUint32(L.CTL + L.CTL_GENERATION, true) + 1, true);
    return result;
  };

  #allocate(bytes: number): { offset: number; bytes: number } {
    const offset = EngineRig.guestOffset(this.#slot++);
    this.#rig.guard(offset, bytes);
    new Uint8Array(this.#rig.view.buffer).fill(0, offset, offset + Math.min(bytes, 0x60000));
    this.guarded.push({ at: offset, bytes });
    return { offset, bytes };
  }

  #guard(at: number, bytes: number): void {
    new Uint8Array(this.#rig.view.buffer).fill(0, at, at + bytes);
    this.#rig.guard(at, bytes);
    this.guarded.push({ at, bytes });
  }

  #surround(guest: AnyRigGuest): Owner {
    const { offset, iova, bytes } = guest.options;
    const random = this.#random;
    const readOnlyIova = BigInt.asUintN(
      64,
      iova + BigInt(random.pick([bytes, bytes + 4096, -READ_ONLY_BYTES, 2 ** 33])),
    );
    const inflightIova = BigInt.asUintN(64, iova ^ (1n << 60n));
    const secondIova = BigInt.asUintN(64, iova ^ (1n << 58n));
    const owner = { guest, readOnlyIova, inflightIova, secondIova, hasLog: random.chance(2) };
    this.#guard(offset + READ_ONLY_AT, READ_ONLY_BYTES);
    this.#guard(offset + LOG_AT, LOG_BYTES_MAX);
    this.#guard(offset + INFLIGHT_AT, INFLIGHT_BYTES);
    this.#guard(offset + SECOND_AT, SECOND_BYTES);
    this.#regions(owner);
    const { view } = this.#rig;
    for (const index of [0, 1]) {
      const at = guest.queuePointer(index);
      const isVirtqueue = view.getUint32(at + L.Q_FLAVOUR, true) !== L.FLAVOUR_ADVANCED;
      if (isVirtqueue && random.chance(2)) {
        const inflight = inflightIova + BigInt(random.pick([0, 64, 1000, INFLIGHT_BYTES - 32, INFLIGHT_BYTES - 16]));
        view.setBigUint64(at + L.Q_INFLIGHT_IOVA, inflight, true);
        this.#rig.wasm.bindRings(at);
      }
    }
    if (owner.hasLog) this.#log(owner);
    return owner;
  }

  /** The memory table: some regions may be missing, or overlap nothing and be nobody's. */
  #regions({ guest, readOnlyIova, inflightIova, secondIova }: Owner): void {
    const { offset, iova, bytes } = guest.options;
    const ends = (at: bigint, size: number) => at + BigInt(size) <= 1n << 64n;
    const all = [
      { iova, size: bytes, window: offset },
      { iova: readOnlyIova, size: READ_ONLY_BYTES, window: offset + READ_ONLY_AT, perm: L.PERM_READ },
      { iova: inflightIova, size: INFLIGHT_BYTES, window: offset + INFLIGHT_AT },
      { iova: secondIova, size: SECOND_BYTES, window: offset + SECOND_AT },
    ];
    this.#rig.setRegions(guest.pool, all.filter(({ iova, size }) => ends(iova, size)));
  }

  #log({ guest }: Owner): void {
    const random = this.#random;
    const { view } = this.#rig;
    const p = L.POOLS + guest.pool * L.POOL_STRIDE;
    const { iova, bytes, offset } = guest.options;
    const exact = Math.min(LOG_BYTES_MAX, Number((iova + BigInt(bytes)) >> 15n));
    const logBytes = random.pick([exact, exact, Math.max(1, exact - 1), 1, LOG_BYTES_MAX]);
    // It ends where its canary begins.
    view.setUint32(p + L.P_LOG, offset + LOG_AT + LOG_BYTES_MAX - logBytes, true);
    view.setUint32(p + L.P_LOG_BYTES, logBytes, true);
    for (let i = 0; i < 32; i++) {
      const inside = random.chance(2) ? iova + BigInt(random.below(bytes / 4096) * 4096) : random.u64();
      const at = random.chance(3) ? BigInt(L.NOT_LOGGED) : inside & ~1n;
      view.setBigUint64(p + L.P_LOG_USED + i * 8, at, true);
    }
    for (const index of [0, 1]) {
      const flags = guest.queuePointer(index) + L.Q_FLAGS;
      view.setUint32(flags, view.getUint32(flags, true) | L.QUEUE_F_LOG, true);
      this.#rig.wasm.logRings(guest.queuePointer(index));
    }
  }

  /** Addresses beside a guest's main memory that it might name. */
  interesting(pool: number): bigint[] {
    const owner = this.#owners.find(({ guest }) => guest.pool === pool);
    if (!owner) return [];
    const { readOnlyIova, inflightIova, secondIova } = owner;
    return [
      ...[readOnlyIova, readOnlyIova + BigInt(READ_ONLY_BYTES), inflightIova, inflightIova + BigInt(INFLIGHT_BYTES)],
      ...[secondIova, secondIova + BigInt(SECOND_BYTES)],
    ];
  }

  /** A front-end rewrites what it shares; somebody opens or ends a capture, or reads it; somebody sets a mirror. */
  act(): void {
    const { view } = this.#rig;
    const random = this.#random;
    for (const { guest: { options: { offset } } } of this.#owners) {
      const inflight = offset + INFLIGHT_AT;
      if (random.chance(3)) view.setUint16(inflight + random.below(INFLIGHT_BYTES / 2) * 2, random.u16(), true);
      if (random.chance(4)) view.setUint16(inflight + INFLIGHT_VERSION, random.below(3), true);
      if (random.chance(4)) view.setBigUint64(inflight + INFLIGHT_PACKED_POSITION, random.u64(), true);
      if (random.chance(10)) new Uint8Array(view.buffer).fill(0, offset + LOG_AT, offset + LOG_AT + LOG_BYTES_MAX);
    }
    if (random.chance(300)) this.#mirror();
    if (random.chance(200)) this.#capture();
    for (const capture of this.#open) if (random.chance(20)) capture.take();
  }

  #mirror(): void {
    const random = this.#random;
    const from = random.below(5);
    const to = random.pick([0, 2, 4].filter((vf) => vf !== from));
    const mirror = random.chance(3) ? null : `${random.pick(["in", "out", "both"])}:${to}` as const;
    this.#rig.set(from, { mirror });
    this.onChange();
  }

  #capture(): void {
    const random = this.#random;
    if (this.#open.length > 2 || (this.#open.length > 0 && random.chance(2))) {
      this.#open.pop()?.close();
      return this.onChange();
    }
    if (this.#slot >= SLOTS_MAX) return;
    const query = new URLSearchParams({ filter: random.pick(FILTERS) });
    if (query.get("filter") === "") query.delete("filter");
    if (random.chance(2)) query.set("snap", String(random.pick([64, 65, 66, 67, 96, 1500, 65535])));
    if (random.chance(3)) query.set("dropped", "true");
    this.#open.push(this.#captures.open(asked(query.toString(), 5)));
    this.onChange();
  }

  /** Starts a packed queue as after the death of its engine, or its front-end's; false: it is no such queue. */
  resume(guest: AnyRigGuest, index: number): boolean {
    const random = this.#random;
    const { view, wasm } = this.#rig;
    const at = guest.queuePointer(index);
    if (view.getUint32(at + L.Q_FLAVOUR, true) !== L.FLAVOUR_PACKED) return false;
    const keeps = view.getBigUint64(at + L.Q_INFLIGHT_IOVA, true) !== 0n;
    const size = view.getUint32(at + L.Q_SIZE, true);
    const position = () => {
      const half = () => random.below(size + 1) | (random.chance(2) ? 0x8000 : 0);
      return random.chance(4) ? random.u32() : (half() | half() << 16) >>> 0;
    };
    view.setUint32(at + L.Q_STATE, L.QUEUE_STOPPED, true);
    if (keeps && random.chance(2)) wasm.resumeInflight(at, position() | 0, random.chance(2) ? -1 : position() | 0);
    else if (random.chance(2)) wasm.resumeQueue(at, position() | 0, random.chance(2) ? -1 : position() | 0);
    else wasm.continueQueue(at, position() | 0, position() | 0);
    return true;
  }

  /** Ends captures. */
  close(): void {
    for (const capture of this.#open) capture.close();
  }

  /** Throws if a canary has changed, or what is read-only. */
  check(): void {
    for (const { at, bytes } of this.guarded) this.#rig.checkGuard(at, bytes);
    for (const { guest: { options: { offset } } } of this.#owners) {
      const readOnly = new Uint8Array(this.#rig.view.buffer, offset + READ_ONLY_AT, READ_ONLY_BYTES);
      if (readOnly.some((byte) => byte !== 0)) throw new Error("a read-only region was written");
    }
  }
}
