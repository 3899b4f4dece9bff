/**
 * Fuzzer for rings: a hostile guest writes seeded nonsense, much of it nearly right, into its rings, tables and frames
 * while the engine polls. No trap, no endless loop, no byte outside its own memory: its neighbours' memory is compared
 * whole, the gaps between guests hold canaries, and an honest pair exchanges frames all the while.
 */
import { QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { ADV_TXD_DCMD_EOP, ADV_TXD_DCMD_RS } from "../../shared/layout/advanced.ts";
import { txMeta } from "../support/advanced_guest.ts";
import { type AdvancedRigGuest, type AnyRigGuest, EngineRig, type RigGuest, rigMac } from "../support/engine_rig.ts";
import { BROADCAST, frame, SplitDriver, writeDescriptor } from "../support/mock_guest.ts";
import { Random } from "./random.ts";

const STEPS_PER_RIG = 400;

/** An address in or near the guest's memory, or anywhere. */
function address(random: Random, guest: AnyRigGuest): bigint {
  const { iova, bytes } = guest.options;
  if (random.chance(8)) return random.u64();
  const edge = random.chance(4) ? BigInt(random.pick([0, bytes])) : BigInt(random.below(bytes));
  return BigInt.asUintN(64, iova + edge + BigInt(random.chance(4) ? random.below(200) - 100 : 0));
}

function descriptor(random: Random, guest: RigGuest) {
  return {
    addr: address(random, guest),
    len: random.u32(),
    flags: random.chance(4) ? random.u16() : random.below(8),
    next: random.chance(2) ? random.below(guest.options.queueSize) : random.u16(),
  };
}

/** One hostile act. */
function act(random: Random, guest: RigGuest): void {
  const queue = guest.queues[random.below(guest.queues.length)];
  if (!queue) return;
  const heap = guest.heap + random.below(200_000);
  switch (random.below(8)) {
    case 0:
      return queue.writeDescriptor(random.below(queue.size), descriptor(random, guest));
    case 1:
      queue.offer(random.chance(4) ? random.u16() : random.below(queue.size));
      return queue.publish();
    case 2:
      return queue.publish(random.chance(3) ? random.u16() : queue.availIdx);
    case 3: {
      const entries = 1 + random.below(8);
      for (let i = 0; i < entries; i++) writeDescriptor(guest.view, heap + i * 16, descriptor(random, guest));
      const len = entries * 16 + (random.chance(4) ? random.below(20) : 0);
      const index = random.below(queue.size);
      queue.writeDescriptor(index, { addr: guest.iova(heap), len, flags: random.chance(4) ? random.below(8) : 4 });
      queue.offer(index);
      return queue.publish();
    }
    case 4: {
      const dst = random.pick([rigMac(0), rigMac(1), BROADCAST, "02:00:00:00:00:77"]);
      const tags = Array.from(
        { length: random.below(3) },
        () => ({ vid: random.below(4096), tpid: random.pick([0x8100, 0x88a8]) }),
      );
      const bytes = frame({ dst, src: random.chance(4) ? rigMac(0) : rigMac(2), bytes: random.below(3000), tags });
      const len = guest.writeFrame(heap, bytes, random.chance(3) ? random.bytes(12) : undefined);
      guest.tx().add([{ addr: guest.iova(heap), len: random.chance(4) ? random.u32() : len }]);
      return guest.tx().publish();
    }
    case 5:
      guest.rx().add([{ addr: address(random, guest), len: random.u32(), write: !random.chance(8) }]);
      return guest.rx().publish();
    case 6:
      return guest.view.setUint16(queue.avail + queue.size * 2 + 4, random.u16(), true);
    default:
      // Anything anywhere in the rings: 16 bits at a time.
      return guest.view.setUint16(
        guest.options.offset + random.below((guest.heap - guest.options.offset) / 2) * 2,
        random.u16(),
        true,
      );
  }
}

/** One hostile act with advanced rings. */
function actAdvanced(random: Random, guest: AdvancedRigGuest): void {
  const ring = guest.rings[random.below(guest.rings.length)];
  if (!ring) return;
  const any = () => random.chance(3) ? random.u64() : BigInt(random.u32());
  switch (random.below(7)) {
    case 0:
      return ring.write(random.below(ring.size), address(random, guest), any());
    case 1:
      return ring.doorbell(random.chance(3) ? random.u32() : random.below(ring.size + 1));
    case 2: {
      // Nearly right: a frame of some descriptors, one of which may be bent.
      const bytes = frame({
        dst: random.pick([rigMac(0), rigMac(1), BROADCAST, "02:00:00:00:00:77"]),
        src: random.chance(4) ? rigMac(0) : rigMac(2),
        bytes: random.below(3000),
        tags: random.chance(3) ? [{ vid: random.below(4096) }] : [],
      });
      const at = guest.heap + random.below(200_000);
      const length = guest.writeFrame(at, bytes);
      const parts = 1 + random.below(4);
      const tx = guest.tx();
      for (let i = 0; i < parts; i++) {
        const last = i + 1 === parts;
        const meta = txMeta(Math.floor(length / parts), last ? ADV_TXD_DCMD_EOP | ADV_TXD_DCMD_RS : 0);
        tx.add(
          guest.iova(at + i * Math.floor(length / parts)),
          random.chance(8) ? meta ^ (1n << BigInt(random.below(64))) : meta,
        );
      }
      return tx.doorbell();
    }
    case 3:
      guest.rx().add(address(random, guest), random.chance(2) ? 0n : address(random, guest));
      return guest.rx().doorbell();
    case 4:
      // Anything in the registers, the device's own among them.
      return ring.registerView.setUint32(
        ring.registers + random.below(32) * 4,
        random.chance(2) ? random.below(70) : random.u32(),
        true,
      );
    default:
      return guest.view.setUint32(
        guest.options.offset + random.below((guest.heap - guest.options.offset) / 4) * 4,
        random.u32(),
        true,
      );
  }
}

/** Compares a bystander's memory with what it was; its rings' NO_NOTIFY flags were set before. */
function checkUntouched(guest: AnyRigGuest, before: Uint8Array): void {
  const now = guest.bytes(guest.options.offset, guest.options.bytes);
  for (let i = 0; i < now.length; i += 8192) {
    const [a, b] = [before.subarray(i, i + 8192), now.subarray(i, i + 8192)];
    const at = a.findIndex((byte, k) => byte !== b[k]);
    if (at >= 0) throw new Error(`byte ${i + at} of a bystander changed`);
  }
}

/** Makes a stopped queue fit to start again; answers its position. */
function resetQueue(guest: AnyRigGuest, index: number): number {
  if ("rings" in guest) {
    const ring = guest.rings[index];
    if (!ring) return 0;
    ring.tail = ring.clean = 0;
    ring.doorbell();
    return 0;
  }
  const queue = guest.queues[index];
  if (!(queue instanceof SplitDriver)) return queue?.reset() ?? 0;
  queue.availIdx = queue.view.getUint16(queue.avail + 2, true);
  return queue.availIdx;
}

function oneRig(random: Random): number {
  const rig = new EngineRig(4, { 2: { trust: random.chance(2), spoofCheck: random.chance(2), trunk: [1, 2, 3] } });
  const flags = (random.chance(2) ? QUEUE_F_INDIRECT : 0) | (random.chance(2) ? QUEUE_F_MRG_RXBUF : 0) |
    (random.chance(2) ? QUEUE_F_EVENT_IDX : 0);
  const queueSize = random.pick([2, 4, 64, 256]);
  const advanced = random.chance(2);
  const [silent, honest] = [rig.attach(0), rig.attach(1)];
  const evil = advanced
    ? rig.attachAdvanced(2, { queueSize: random.pick([8, 64, 256]) }, random.pick([0, 128]))
    : rig.attach(2, { queueSize }, flags);
  const peer = rig.attach(3);
  // The silent one posts no buffer: nothing may be written to it at all. Beside it, an honest pair.
  const before = silent.bytes(silent.options.offset, silent.options.bytes);
  evil.fill(Math.min(advanced ? 7 : 8, queueSize));
  let stops = 0;
  for (let step = 0; step < STEPS_PER_RIG; step++) {
    for (let i = random.below(6); i >= 0; i--) {
      if ("rings" in evil) actAdvanced(random, evil);
      else act(random, evil);
    }
    if (random.chance(4)) peer.send([frame({ dst: rigMac(2), src: rigMac(3), bytes: 60 + random.below(1500) })]);
    rig.run(10);
    for (const index of [0, 1]) {
      if (rig.error(2, index) === 0 && !random.chance(50)) continue;
      stops++;
      // Its guest resets it, wherever its own indices stand.
      rig.wasm.startQueue(evil.queuePointer(index), resetQueue(evil, index));
    }
    if (step % 40 === 0) {
      while (peer.tx().popUsed());
      const [ping] = [frame({ dst: rigMac(1), src: rigMac(3), etherType: 0x1111, bytes: 100 })];
      honest.receive();
      honest.fill(32 - honest.posted());
      peer.send([ping]);
      rig.run(2000);
      const got = honest.receive().filter((bytes) => bytes[12] === 0x11 && bytes[13] === 0x11 && bytes[11] === 4);
      if (got.length !== 1) throw new Error(`an honest frame arrived ${got.length} times`);
    }
  }
  checkUntouched(silent, before);
  rig.checkCanaries();
  return stops;
}

/** Fuzzes until the time is up; answers rigs and queue stops. Throws with the seed that repeats what it found. */
export function fuzzRings(seed: number, seconds: number): { rigs: number; stops: number } {
  const end = performance.now() + seconds * 1000;
  let [rigs, stops] = [0, 0];
  while (performance.now() < end) {
    const thisSeed = (seed + rigs) >>> 0;
    try {
      stops += oneRig(new Random(thisSeed));
    } catch (cause) {
      throw new Error(`ring fuzzer, seed ${thisSeed}: ${cause instanceof Error ? cause.message : cause}`, { cause });
    }
    rigs++;
  }
  return { rigs, stops };
}
