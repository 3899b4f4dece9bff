/**
 * Who gets how much of a busy engine: pools share its time, whatever their traffic, their queues and their neighbours;
 * and a queue without work is left alone. Frames and engine time are counted, nothing is timed.
 */
import { assert, assertEquals } from "@std/assert";
import { CTL, CTL_HOT_COUNT, Q_HEAT } from "../../shared/layout/nic.ts";
import { HEAT_COLD } from "../../shared/layout/nic.ts";
import type { VfPolicy } from "../../shared/api/mod.ts";
import { EngineRig, type RigGuest, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const PASSES = 150;
const SIZE = 512;

/** How far from what is right a share may be. */
const TOLERANCE = 0.1;

function near(actual: number, wanted: number, what: string): void {
  assert(
    Math.abs(actual / wanted - 1) <= TOLERANCE,
    `${what}: ${actual}, wanted ${wanted} within ${TOLERANCE * 100} %`,
  );
}

/** A guest with deep rings and small buffers. */
function attach(rig: EngineRig, pool: number, queuePairs = 1): RigGuest {
  return rig.attach(pool, { queueSize: queuePairs > 1 ? 64 : SIZE, bufferBytes: 1024, queuePairs });
}

/** Passes of the engine in which all senders always have more to send, and all receivers room. */
function saturate(
  rig: EngineRig,
  senders: { guest: RigGuest; frames: Uint8Array[] }[],
  receivers: RigGuest[],
  passes = PASSES,
): void {
  for (let pass = 0; pass < passes; pass++) {
    for (const { guest, frames } of senders) {
      for (let pair = 0; pair < guest.options.queuePairs; pair++) {
        guest.send(Array.from({ length: guest.room(pair) }, (_, i) => frames[i % frames.length] as Uint8Array), pair);
      }
    }
    for (const receiver of receivers) {
      while (receiver.rx().popUsed());
      receiver.fill(Math.max(0, SIZE - receiver.posted()));
    }
    rig.wasm.run(rig.nowNs += 1e4, 1);
    rig.takeCalls();
  }
}

const toVf = (to: number, from: number, bytes = 64, vid?: number) =>
  frame({ dst: rigMac(to), src: rigMac(from), bytes, tags: vid === undefined ? [] : [{ vid }] });

/** Two senders beside each other for a while: frames that each sent, and engine time that each took. */
function compete(policies: Record<number, Partial<VfPolicy>>, slow: (rig: EngineRig) => Uint8Array[], vfs = 4) {
  const rig = new EngineRig(vfs, policies);
  const [fast, special, a, b] = [0, 1, 2, 3].map((vf) => attach(rig, vf)) as [
    RigGuest,
    RigGuest,
    RigGuest,
    RigGuest,
  ];
  saturate(rig, [{ guest: fast, frames: [toVf(2, 0)] }, { guest: special, frames: slow(rig) }], [a, b]);
  rig.checkCanaries();
  return [0, 1].map((vf) => rig.counters(vf)) as [Record<string, number>, Record<string, number>];
}

Deno.test("a sender of tagged frames gets as many as its fast neighbour", () => {
  const [fast, tagged] = compete({ 1: { trunk: [10] }, 3: { trunk: [10] } }, () => [toVf(3, 1, 64, 10)]);
  near(tagged.tx_frames ?? 0, fast.tx_frames ?? 0, "tagged frames");
});

Deno.test("a sender to ever other addresses, which nobody has, gets its share of time", () => {
  const peers = Array.from(
    { length: 200 },
    (_, i) => frame({ dst: `02:99:00:00:00:${i.toString(16).padStart(2, "0")}`, src: rigMac(1) }),
  );
  const [fast, many] = compete({}, () => peers);
  assert((many.tx_frames ?? 0) > 0);
  near(many.engine_ns ?? 0, fast.engine_ns ?? 0, "engine time");
});

Deno.test("a sender of broadcasts to a hundred VFs gets its share of time, and its neighbour all the rest", () => {
  const rig = new EngineRig(100);
  const guests = Array.from({ length: 6 }, (_, vf) => attach(rig, vf));
  const [fast, flooder, receiver] = guests as [RigGuest, RigGuest, RigGuest];
  const broadcast = frame({ dst: "ff:ff:ff:ff:ff:ff", src: rigMac(1) });
  saturate(rig, [{ guest: fast, frames: [toVf(2, 0)] }, { guest: flooder, frames: [broadcast] }], [receiver]);
  near(rig.counters(1).engine_ns ?? 0, rig.counters(0).engine_ns ?? 0, "engine time");
});

Deno.test("frames of the uplink get their share beside a VF's", () => {
  const rig = new EngineRig(3);
  const [fast, a, b] = [0, 1, 2].map((vf) => attach(rig, vf)) as [RigGuest, RigGuest, RigGuest];
  const uplink = rig.attachUplink({ queueSize: SIZE, bufferBytes: 1024 });
  const down = frame({ dst: rigMac(2), src: "02:99:99:99:99:99" });
  saturate(rig, [{ guest: fast, frames: [toVf(1, 0)] }, { guest: uplink, frames: [down] }], [a, b]);
  near(rig.counters(uplink.pool).tx_frames ?? 0, rig.counters(0).tx_frames ?? 0, "the uplink's frames");
});

for (const bytes of [64, 900]) {
  Deno.test(`sixteen queues get as many frames as one, ${bytes} B`, () => {
    const rig = new EngineRig(4);
    // Frames are compared, not time: a visit must not end early because its guest's pages are touched for the first time.
    rig.isClockStill = true;
    const many = attach(rig, 0, 16);
    const [one, a, b] = [1, 2, 3].map((vf) => attach(rig, vf)) as [RigGuest, RigGuest, RigGuest];
    saturate(rig, [{ guest: many, frames: [toVf(2, 0, bytes)] }, { guest: one, frames: [toVf(3, 1, bytes)] }], [a, b]);
    const [sixteen = 0, single = 0] = [0, 1].map((vf) => rig.counters(vf).tx_frames ?? 0);
    assert(sixteen / single > 0.85 && sixteen / single < 1.1, `${sixteen} frames of sixteen queues, ${single} of one`);
  });
}

Deno.test("a VF with a minimum rate that is silent takes nothing from the others", () => {
  const sent = [{}, { 2: { minTxRate: 1000 } }].map((policies) => {
    const rig = new EngineRig(3, policies as Record<number, Partial<VfPolicy>>);
    const [sender, receiver] = [attach(rig, 0), attach(rig, 1)];
    attach(rig, 2);
    saturate(rig, [{ guest: sender, frames: [toVf(1, 0, 900)] }], [receiver]);
    return rig.counters(0).tx_frames ?? 0;
  });
  near(sent[1] ?? 0, sent[0] ?? 0, "frames beside a silent VF");
});

Deno.test("minimum rates are shares of time, also when they are far apart", () => {
  const rig = new EngineRig(4, { 0: { minTxRate: 2000 }, 1: { minTxRate: 100 } });
  const [a, b, c, d] = [0, 1, 2, 3].map((vf) => attach(rig, vf)) as [
    RigGuest,
    RigGuest,
    RigGuest,
    RigGuest,
  ];
  saturate(rig, [{ guest: a, frames: [toVf(2, 0)] }, { guest: b, frames: [toVf(3, 1)] }], [c, d], 600);
  near((rig.counters(0).engine_ns ?? 0) / (rig.counters(1).engine_ns ?? 1), 20, "engine time");
});

Deno.test("queues without work go cold and cost nothing; a kick brings them back", () => {
  const rig = new EngineRig(20);
  const guests = Array.from({ length: 20 }, (_, vf) => attach(rig, vf));
  const [sender, receiver, silent] = guests as [RigGuest, RigGuest, RigGuest];
  const hot = () => rig.view.getUint32(CTL + CTL_HOT_COUNT, true);
  assertEquals(hot(), 20);
  saturate(rig, [{ guest: sender, frames: [toVf(1, 0)] }], [receiver], 60);
  assert(hot() <= 8, `${hot()} queues are polled`);
  const queue = silent.queuePointer(1);
  assertEquals(rig.view.getUint32(queue + Q_HEAT, true), HEAT_COLD);
  silent.send([toVf(3, 2)]);
  guests[3]?.fill(1);
  rig.run();
  assertEquals(guests[3]?.receive(), [toVf(3, 2)]);
});
