/**
 * Fuzzer for the direct paths: two hostile guests whose virtqueues are carried to driver pairs, with buffers of their own
 * on the NIC's rings. Whatever they write, their driver pairs stay whole (a guest that breaks its rings stops those, and
 * nothing at the NIC), an honest pair exchanges frames all the while, and nothing beside their memory changes.
 */
import { Q_OFFLOADS, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { DirectRig, type EmulatedGuest } from "../support/direct_rig.ts";
import { type PackedRigGuest, type RigGuest, rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import type { Hostile, Targets } from "./hostile.ts";
import { HostilePacked } from "./hostile_packed.ts";
import { HostileSplit } from "./hostile_split.ts";
import { Random } from "./random.ts";

const STEPS_PER_RIG = 1000;
const STEPS_PER_CHECK = 20;
const ACTS_MAX = 6;
const PING = 0x1111;
const TRIES = 200;
const TRIES_BETWEEN = 10;
const PATHS = ["zerocopy", "headersplit"] as const;
const [HONEST, PEER] = [0, 1];

interface Evil {
  hostile: Hostile;
  emulated: EmulatedGuest;
}

/** A guest of any format on a direct path. */
function attach(world: DirectRig, random: Random, queueSize: number): EmulatedGuest {
  const flags = (random.chance(2) ? QUEUE_F_INDIRECT : 0) | (random.chance(2) ? QUEUE_F_MRG_RXBUF : 0);
  const offloads = random.chance(3) ? 0 : random.below(64);
  const made = world.attach(random.pick(PATHS), random.pick(VIRTQUEUE_FORMATS), { queueSize }, flags);
  for (const index of [0, 1]) {
    for (const at of [made.guest.queuePointer(index), made.nicQueue(index)]) {
      world.rig.view.setUint32(at + Q_OFFLOADS, offloads, true);
    }
  }
  return made;
}

function attachHostile(world: DirectRig, random: Random): Evil {
  const emulated = attach(world, random, random.pick([1, 2, 4, 64, 256]));
  const others = [0, 1, 2, 3].filter((vf) => vf !== emulated.vf).map(rigMac);
  const targets: Targets = { own: rigMac(emulated.vf), others };
  const hostile = "moveTo" in emulated.guest.rx()
    ? new HostilePacked(random, emulated.guest as PackedRigGuest, targets)
    : new HostileSplit(random, emulated.guest as RigGuest, targets);
  return { hostile, emulated };
}

/**
 * The honest pair exchanges a frame, whatever the others do. They may fill the honest receiver's ring with frames of
 * their own, as anybody can, so what was lost for want of a buffer is sent again; no frame comes twice.
 */
function checkHonest(world: DirectRig, honest: EmulatedGuest, peer: EmulatedGuest): void {
  honest.guest.receive();
  let [sent, arrived] = [0, 0];
  for (let tries = 0; arrived === 0 && tries < TRIES; tries++) {
    honest.guest.fill(48 - honest.guest.posted());
    // What others have sent before comes before it.
    if (tries % TRIES_BETWEEN === 0 && peer.guest.room() > 0) {
      peer.guest.send([frame({ dst: rigMac(HONEST), src: rigMac(PEER), etherType: PING, bytes: 100 })]);
      sent++;
    }
    world.run(50);
    arrived = honest.guest.receive().filter((bytes) => bytes[12] === PING >> 8 && bytes[11] === PEER + 1).length;
  }
  if (arrived === 0 || arrived > sent) throw new Error(`of ${sent} honest frames ${arrived} arrived`);
}

/** One engine with its guests; answers how many queues were stopped or reset. */
function oneRig(random: Random): number {
  const world = new DirectRig(4);
  const [honest, peer] = [attach(world, random, 64), attach(world, random, 64)];
  const evils = [attachHostile(world, random), attachHostile(world, random)];
  let stops = 0;
  for (let step = 0; step < STEPS_PER_RIG; step++) {
    for (const { hostile } of evils) for (let i = random.below(ACTS_MAX); i >= 0; i--) hostile.act();
    world.run(10);
    for (const { hostile, emulated } of evils) {
      if (emulated.error !== 0) throw new Error(`vf ${emulated.vf}'s driver pair stopped: ${emulated.error}`);
      if (random.chance(40)) emulated.recallReceived(() => world.rig.wasm.run(world.rig.nowNs, 1));
      for (const index of [0, 1]) {
        if (world.rig.error(emulated.pool, index) === 0 && !random.chance(50)) continue;
        stops++;
        if (index === 0) emulated.recallReceived();
        else emulated.recallSent();
        hostile.restart(world.rig, index);
      }
    }
    if (step % STEPS_PER_CHECK === 0) checkHonest(world, honest, peer);
  }
  world.rig.checkCanaries();
  return stops;
}

/** Fuzzes for so many seconds; throws with the seed that repeats what it found. Answers rigs, and queues that stopped. */
export function fuzzDirect(seed: number, seconds: number): { rigs: number; stops: number } {
  const end = performance.now() + seconds * 1000;
  let [rigs, stops] = [0, 0];
  for (; performance.now() < end; rigs++) {
    const thisSeed = (seed + rigs) >>> 0;
    try {
      stops += oneRig(new Random(thisSeed));
    } catch (cause) {
      throw new Error(`direct fuzzer, seed ${thisSeed}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
  }
  return { rigs, stops };
}
