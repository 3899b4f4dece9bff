/**
 * Fuzzer for rings: two hostile guests, each of any format, write seeded nonsense, much of it nearly right, into their
 * rings, tables and frames while the engine polls, with logs, inflight memory, packet buffers, captures and mirrors. No trap,
 * no endless loop, no byte outside their own memory: their neighbours' memory is compared whole, the engine's own state
 * where it is to stay, the gaps between guests hold canaries, and an honest pair exchanges frames all the while.
 */
import {
  Q_OFFLOADS,
  QUEUE_F_EVENT_IDX,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
  WINDOWS,
} from "../../shared/layout/nic.ts";
import {
  type AdvancedRigGuest,
  type AnyRigGuest,
  EngineRig,
  FORMATS,
  type PackedRigGuest,
  type RigGuest,
  rigMac,
} from "../support/engine_rig.ts";
import { ARENA_BYTES } from "../../shared/os/mod.ts";
import type { FormatName } from "../support/formats.ts";
import { frame } from "../support/mock_guest.ts";
import { between, Forbidden, type Range } from "../support/no_access.ts";
import type { Hostile, Targets } from "./hostile.ts";
import { HostileAdvanced } from "./hostile_advanced.ts";
import { HostilePacked } from "./hostile_packed.ts";
import { HostileSplit } from "./hostile_split.ts";
import type { Random } from "./random.ts";
import { Random as Seeded } from "./random.ts";
import { EngineState } from "./state.ts";
import { anyIova, FIRST_SLOT, SLOTS_MAX, Surroundings } from "./surroundings.ts";

const STEPS_PER_RIG = 2000;
const STEPS_PER_CHECK = 40;
const STEPS_PER_STATE = 400;
const ACTS_MAX = 6;
const TRIES = 200;
const [SILENT, HONEST, PEER] = [0, 1, 3];
const HOSTILE = [2, 4];
/** Frames of the honest pair, which nobody else sends. */
const PING = 0x1111;

/** How far fuzzing has come: rigs, queues that stopped or were reset, and descriptors that hostile guests offered. */
interface Fuzzed {
  rigs: number;
  stops: number;
  descriptors: number;
}

/** How hard it is. */
export interface RingOptions {
  /** What nobody may touch has no pages: a stray access, one that reads too, ends the process. */
  isGuarded?: boolean;
  /** Told each fabric's seed before it begins. */
  onSeed?: (seed: number) => void;
}

/** Fuzzes until so many seconds have passed, or so many descriptors were offered. */
export type Until = { seconds: number } | { descriptors: number };

function attachHostile(rig: EngineRig, random: Random, vf: number): Hostile {
  const format = random.pick(FORMATS);
  const flags = (random.chance(2) ? QUEUE_F_INDIRECT : 0) | (random.chance(2) ? QUEUE_F_MRG_RXBUF : 0) |
    (random.chance(2) ? QUEUE_F_EVENT_IDX : 0);
  const targets: Targets = { own: rigMac(vf), others: [0, 1, 2, 3, 4].filter((other) => other !== vf).map(rigMac) };
  if (format === "advanced") {
    const guest = rig.attachAdvanced(vf, { queueSize: random.pick([8, 64, 256]) }, random.pick([0, 128]));
    return new HostileAdvanced(random, guest as AdvancedRigGuest, targets);
  }
  const isPacked = format.startsWith("packed");
  const queueSize = isPacked
    ? random.pick([1, 2, 3, 1 + random.below(70), 1 + random.below(300), 1000])
    : random.pick([1, 2, 4, 64, 256]);
  const iova = anyIova(random, EngineRig.guestBytes);
  const guest = rig.attachVirtqueues(format, vf, { queueSize, iova }, flags);
  allowOffloads(rig, guest, random);
  return isPacked
    ? new HostilePacked(random, guest as PackedRigGuest, targets)
    : new HostileSplit(random, guest as RigGuest, targets);
}

function attachHonest(rig: EngineRig, random: Random, vf: number): AnyRigGuest {
  const format: FormatName = random.pick(FORMATS);
  const queueSize = format.startsWith("packed") ? 40 + random.below(60) : 64;
  const guest = rig.attachAs(format, vf, { queueSize });
  if (format !== "advanced") allowOffloads(rig, guest, random);
  return guest;
}

/** Lets a guest leave to others what it likes, and accept what it likes. */
function allowOffloads(rig: EngineRig, guest: AnyRigGuest, random: Random): void {
  for (const index of [0, 1]) {
    rig.view.setUint16(guest.queuePointer(index) + Q_OFFLOADS, random.chance(3) ? 0 : random.below(64), true);
  }
}

/** Compares a bystander's memory with what it was. */
function checkUntouched(guest: AnyRigGuest, before: Uint8Array): void {
  const now = new Uint8Array(guest.view.buffer, guest.options.offset, guest.options.bytes);
  for (let i = 0; i < now.length; i++) if (now[i] !== before[i]) throw new Error(`byte ${i} of a bystander changed`);
}

/** The honest pair exchanges a frame, whatever the others do. */
function checkHonest(rig: EngineRig, honest: AnyRigGuest, peer: AnyRigGuest): void {
  peer.room();
  let arrived = 0;
  const take = () => {
    const got = honest.receive();
    arrived += got.filter((bytes) => bytes[12] === PING >> 8 && bytes[11] === PEER + 1).length;
    honest.fill(32 - honest.posted());
    rig.run(2000);
    return got.length;
  };
  // What others have sent waits in its packet buffer, and comes first.
  for (let tries = 0; tries < TRIES && take() > 0; tries++);
  peer.send([frame({ dst: rigMac(HONEST), src: rigMac(PEER), etherType: PING, bytes: 100 })]);
  rig.run(2000);
  for (let tries = 0; tries < TRIES && take() > 0; tries++);
  if (arrived !== 1) throw new Error(`an honest frame arrived ${arrived} times`);
}

/** Forbids what is nobody's, and the bystander's buffers. */
function guard(rig: EngineRig, silent: AnyRigGuest, around: Surroundings): Forbidden {
  const own = [...rig.guests.values()].map(({ options: { offset, bytes } }) => ({ at: offset, bytes }));
  const allowed = [...own, ...around.guarded].map(({ at, bytes }): Range => [
    at - EngineRig.canaryBytes,
    at + bytes + EngineRig.canaryBytes,
  ]);
  const others = EngineRig.guestOffset(FIRST_SLOT) - EngineRig.canaryBytes;
  const { heap, options: { offset, bytes } } = silent;
  const behind = EngineRig.guestOffset(SLOTS_MAX) - EngineRig.canaryBytes;
  const gaps = [...between(allowed, [WINDOWS, others]), [behind, ARENA_BYTES]] as const;
  return new Forbidden(rig.view, [...gaps, [heap, offset + bytes]]);
}

/** One engine with its guests; answers what was done to it. */
function oneRig(random: Random, { isGuarded }: RingOptions): Omit<Fuzzed, "rigs"> {
  const policy = () => ({
    ...{ trust: random.chance(2), spoofCheck: random.chance(2), trunk: [1, 2, 3] },
    nativeVlan: random.pick([0, 0, 1, 9]),
    allowedIps: random.pick([[], [], ["10.0.0.1"], ["::/0"]]),
    maxBroadcastRate: random.pick([0, 1000]),
  });
  const rig = new EngineRig(5, { 2: policy(), 4: policy() });
  const silent = rig.attach(SILENT);
  const [honest, peer] = [attachHonest(rig, random, HONEST), attachHonest(rig, random, PEER)];
  const hostile = HOSTILE.map((vf) => attachHostile(rig, random, vf));
  // The silent one posts no buffer: nothing may be written to it at all.
  const before = silent.bytes(silent.options.offset, silent.options.bytes);
  const around = new Surroundings(rig, random, hostile.map(({ guest }) => guest), [silent, honest]);
  for (const evil of hostile) evil.elsewhere = random.chance(2) ? around.interesting(evil.guest.pool) : [];
  const state = new EngineState(rig, [...rig.guests.values()]);
  around.onChange = () => state.renew();
  using during = new DisposableStack();
  if (isGuarded) during.use(guard(rig, silent, around));
  const done = { stops: 0, descriptors: 0 };
  for (let step = 0; step < STEPS_PER_RIG; step++) {
    let offered = 0;
    for (const evil of hostile) {
      for (let i = random.below(ACTS_MAX); i >= 0; i--) offered += evil.act();
    }
    if (random.chance(4)) {
      const to = random.pick(HOSTILE);
      if (peer.room() > 8) peer.send([frame({ dst: rigMac(to), src: rigMac(PEER), bytes: 60 + random.below(1500) })]);
    }
    around.act();
    rig.run(10);
    state.checkBounds();
    const stopped = hostile.flatMap((evil) => [0, 1].filter((index) => rig.error(evil.guest.pool, index) !== 0)).length;
    // Of what is behind the descriptor that stopped a queue the engine has seen nothing.
    done.descriptors += stopped > 0 ? stopped : offered;
    for (const evil of hostile) {
      for (const index of [0, 1]) {
        if (rig.error(evil.guest.pool, index) === 0 && !random.chance(50)) continue;
        done.stops++;
        if (random.chance(4) && around.resume(evil.guest, index)) continue;
        evil.restart(rig, index);
      }
    }
    if (step % STEPS_PER_CHECK === 0) checkHonest(rig, honest, peer);
    if (step % STEPS_PER_STATE === 0) state.check();
  }
  during.dispose();
  state.check();
  around.close();
  around.check();
  checkUntouched(silent, before);
  rig.checkCanaries();
  return done;
}

/** Fuzzes; throws with the seed that repeats what it found. `tell` hears of the progress. */
export function fuzzRings(
  seed: number,
  until: Until,
  tell: (done: Fuzzed) => void = () => {},
  options: RingOptions = {},
): Fuzzed {
  const end = "seconds" in until ? performance.now() + until.seconds * 1000 : Infinity;
  const most = "descriptors" in until ? until.descriptors : Infinity;
  const done: Fuzzed = { rigs: 0, stops: 0, descriptors: 0 };
  while (performance.now() < end && done.descriptors < most) {
    const thisSeed = (seed + done.rigs) >>> 0;
    options.onSeed?.(thisSeed);
    try {
      const { stops, descriptors } = oneRig(new Seeded(thisSeed), options);
      done.stops += stops;
      done.descriptors += descriptors;
    } catch (cause) {
      throw new Error(`ring fuzzer, seed ${thisSeed}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
    done.rigs++;
    tell(done);
  }
  return done;
}
