/**
 * When drivers are interrupted (assembly/engine/queue/coalesce.ts): fixed times and frames, adaptively, in every format;
 * and that no deferred interrupt is ever lost. The clock is the test's own.
 */
import { assert, assertEquals } from "@std/assert";
import { CTL, CTL_DEFERRED_COUNT, Q_STATE, QUEUE_ERROR } from "../../shared/layout/nic.ts";
import { Random } from "../fuzz/random.ts";
import { EngineRig, FORMATS, rigMac } from "../support/engine_rig.ts";
import { DRIVERS, InterruptWorld } from "../support/interrupt_world.ts";
import { frame } from "../support/mock_guest.ts";

const FIXED = { adaptiveRx: false, rxUsecs: 50, rxFrames: 64 };
const ADAPTIVE = { adaptiveRx: true, rxUsecs: 50, rxFrames: 64 };
const OFF = { rxUsecs: 0 };

/** A test over all ways in which drivers ask for interrupts. */
function test(
  name: string,
  settings: ConstructorParameters<typeof InterruptWorld>[2],
  body: (world: InterruptWorld) => void,
  queueSize?: number,
): void {
  for (const [driver, format, flags] of DRIVERS) {
    Deno.test(`${name} (${driver})`, () => body(new InterruptWorld(format, flags, settings, queueSize)));
  }
}

test("off: every burst interrupts", OFF, (world) => {
  for (let i = 0; i < 200; i++) {
    assertEquals(world.deliver(1 + i % 3), 1);
    assertEquals(world.serve(), 1 + i % 3);
    assertEquals(world.pass(1), 0);
  }
  assertEquals(world.counted, [200, 0]);
});

test("fixed: an interrupt waits for its time from the first frame on, and stands for all that came", FIXED, (world) => {
  for (let round = 0; round < 20; round++) {
    assertEquals([world.deliver(1), world.pass(30), world.deliver(2), world.pass(19)], [0, 0, 0, 0]);
    assertEquals(world.pass(1), 1, `in round ${round}`);
    assertEquals(world.serve(), 3);
    assertEquals(world.pass(1000), 0, "and comes once");
  }
  assertEquals(world.counted, [20, 20]);
});

test("fixed: enough frames end the wait", { ...FIXED, rxFrames: 4 }, (world) => {
  for (let round = 0; round < 20; round++) {
    assertEquals([world.deliver(1), world.deliver(2), world.deliver(1)], [0, 0, 1]);
    assertEquals(world.serve(), 4);
    assertEquals([world.deliver(4), world.serve(), world.pass(1000)], [1, 4, 0], "at once");
  }
  assertEquals(world.counted, [40, 40]);
});

test("a quarter of the ring ends the wait, before its driver runs out of buffers", {
  ...{ ...FIXED, rxUsecs: 10_000, rxFrames: 1024 },
}, (world) => {
  for (let round = 0; round < 20; round++) {
    assertEquals([world.deliver(8), world.deliver(7), world.deliver(1)], [0, 0, 1], `in round ${round}`);
    world.serve();
  }
}, 64);

test("adaptive: a queue that was quiet interrupts at once", ADAPTIVE, (world) => {
  for (let i = 0; i < 300; i++) {
    assertEquals(world.deliver(1), 1, `frame ${i}`);
    world.serve();
    world.pass(25 + i % 50);
  }
  assertEquals(world.counted, [300, 0]);
});

test("adaptive: after a busy time too, the first frame behind a quiet one interrupts at once", ADAPTIVE, (world) => {
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 500; i++) {
      if (world.deliver(1) + world.pass(1) > 0) world.serve();
    }
    world.pass(100);
    world.serve();
    world.pass(100);
    assertEquals(world.deliver(1), 1, `round ${round}`);
    world.serve();
  }
});

/** Sends a frame every `gapUs`, and serves each interrupt; answers frames an interrupt and the longest wait in µs. */
function stream(world: InterruptWorld, gapUs: number, frames: number): { each: number; longestUs: number } {
  let [interrupts, longestUs, oldest] = [0, 0, Infinity];
  let now = 0;
  for (let i = 0; i < frames; i++) {
    oldest = Math.min(oldest, now);
    let calls = world.deliver(1);
    for (let us = 0; us <= gapUs; us++) {
      if (calls > 0) {
        interrupts++;
        longestUs = Math.max(longestUs, now - oldest);
        oldest = Infinity;
        world.serve();
      }
      if (us === gapUs) break;
      now++;
      calls = world.pass(1);
    }
  }
  return { each: frames / interrupts, longestUs };
}

test("adaptive: the higher the rate, the more frames an interrupt has, and none waits too long", ADAPTIVE, (world) => {
  const slow = stream(world, 100, 2000);
  const medium = stream(world, 10, 2000);
  const fast = stream(world, 1, 2000);
  assert(slow.each === 1 && slow.longestUs === 0, `at 10,000 frames/s: ${JSON.stringify(slow)}`);
  assert(medium.each > 2.5 && medium.each < 5, `at 100,000 frames/s: ${medium.each} frames an interrupt`);
  assert(fast.each > 25 && fast.each <= 64, `at 1,000,000 frames/s: ${fast.each} frames an interrupt`);
  for (const { longestUs } of [medium, fast]) assert(longestUs <= 50, `a frame waited for ${longestUs} µs`);
});

test("adaptive: who answers each frame before the next comes is not made to wait", ADAPTIVE, (world) => {
  let waited = 0;
  for (let i = 0; i < 2000; i++) {
    if (world.deliver(1) === 0) {
      waited++;
      while (world.pass(1) === 0);
    }
    assertEquals(world.serve(), 1);
    world.pass(5);
  }
  assert(waited > 0 && waited < 20, `${waited} of 2000 answers came late`);
});

test("a driver that polls meanwhile is not interrupted, and is again when it asks", FIXED, (world) => {
  for (let round = 0; round < 5; round++) {
    assertEquals(world.deliver(3), 0);
    world.never(world.receiver);
    assertEquals(world.pass(50), 0, "its time is over, and it wants none");
    assertEquals(world.deliver(3), 0);
    assertEquals(world.receiver.receive().length, 6);
    world.receiver.fill(6);
    world.ask();
    assertEquals([world.deliver(1), world.pass(50), world.serve()], [0, 1, 1], `round ${round}`);
  }
});

test("a pause has everything raised first: nothing changes while an interrupt is deferred", FIXED, (world) => {
  assertEquals([world.deliver(1), world.pause(), world.serve(), world.pause()], [0, 1, 1, 0]);
  assertEquals([world.deliver(1), world.pause(), world.serve()], [0, 1, 1]);
  world.rig.set(1, OFF);
  assertEquals(world.deliver(1), 1);
});

test("before it sleeps the worker raises what is adaptive", ADAPTIVE, (world) => {
  stream(world, 1, 500);
  world.pass(200);
  world.serve();
  while (world.deliver(1) > 0) world.serve();
  assertEquals(world.rig.wasm.raiseBeforeSleep(), Infinity);
  assertEquals(world.rig.takeCalls(), 1);
});

test("before it sleeps the worker learns when the first fixed one is due", FIXED, (world) => {
  assertEquals(world.rig.wasm.raiseBeforeSleep(), Infinity);
  world.deliver(1);
  assertEquals(world.rig.wasm.raiseBeforeSleep(), 50_000);
  world.rig.nowNs += 20_000;
  assertEquals([world.rig.wasm.raiseBeforeSleep(), world.rig.takeCalls()], [30_000, 0]);
  assertEquals(world.pass(30), 1);
  assertEquals(world.rig.wasm.raiseBeforeSleep(), Infinity);
});

test("a queue that stops is forgotten; one that has failed is interrupted, its rings unread", FIXED, (world) => {
  const queue = world.receiver.queuePointer(0);
  world.deliver(1);
  world.rig.wasm.forgetDeferral(queue);
  assertEquals([world.pass(50), world.rig.view.getUint32(CTL + CTL_DEFERRED_COUNT, true)], [0, 0]);
  world.deliver(1);
  world.never(world.receiver);
  world.rig.view.setUint32(queue + Q_STATE, QUEUE_ERROR, true);
  assertEquals(world.pass(50), 1);
});

for (const format of FORMATS) {
  Deno.test(`several wait at a time, each for its own (${format})`, () => {
    const waits = [10, 40, 50, 30, 20];
    const policies = waits.map((rxUsecs, i) => [i + 1, { ...FIXED, rxUsecs, rxFrames: i === 2 ? 2 : 64 }]);
    const rig = new EngineRig(6, { 0: { txUsecs: 0 }, ...Object.fromEntries(policies) });
    rig.isClockStill = true;
    const guests = Array.from({ length: 6 }, (_, vf) => rig.attachAs(format, vf));
    for (const guest of guests) {
      guest.fill(32);
      if ("rings" in guest) guest.rx().interrupt = true;
    }
    const at = (us: number) => {
      rig.nowNs += us * 1000;
      rig.run(20, 0);
      return waits.map((_, i) => rig.counters(i + 1).rx_interrupts);
    };
    guests[0]?.send([frame({ dst: "ff:ff:ff:ff:ff:ff", src: rigMac(0) })]);
    assertEquals([at(0), at(9)], [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0]]);
    assertEquals(at(1), [1, 0, 0, 0, 0]);
    assertEquals([at(9), at(1)], [[1, 0, 0, 0, 0], [1, 0, 0, 0, 1]]);
    guests[0]?.send([frame({ dst: rigMac(3), src: rigMac(0) })]);
    assertEquals(at(0), [1, 0, 1, 0, 1], "the third has its two frames");
    assertEquals([at(9), at(1)], [[1, 0, 1, 0, 1], [1, 0, 1, 1, 1]]);
    assertEquals([at(9), at(1)], [[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]]);
    assertEquals(at(1000), [1, 1, 1, 1, 1]);
  });
}

test("transmit queues have their own times", { txUsecs: 20, adaptiveTx: false, rxUsecs: 0 }, (world) => {
  const { receiver: guest, rig } = world;
  world.never(guest);
  const ask = () => {
    if ("rings" in guest) return void (guest.tx().interrupt = true);
    const tx = guest.tx();
    tx.noInterrupt = false;
    if (!guest.options.eventIdx) return;
    if ("interruptAt" in tx) tx.interruptAt(tx.nextUsed);
    else tx.view.setUint16(tx.avail + 4 + 2 * tx.size, tx.lastUsed, true);
  };
  for (let round = 0; round < 5; round++) {
    guest.room();
    ask();
    guest.send([new Uint8Array(60), new Uint8Array(60)]);
    assertEquals([world.pass(0), world.pass(19), world.pass(1)], [0, 0, 1], `round ${round}`);
  }
  assertEquals(rig.counters(1).tx_interrupts, 5);
});

for (const [driver, format, flags] of DRIVERS) {
  Deno.test(`whatever comes when, no frame waits longer than it may (${driver})`, () => {
    const seed = Math.floor(Math.random() * 2 ** 32);
    const random = new Random(seed);
    const below = (n: number) => random.below(n);
    for (let run = 0; run < 20; run++) {
      const [rxUsecs, rxFrames] = [below(100), 1 + below(64)];
      const world = new InterruptWorld(format, flags, { adaptiveRx: below(2) === 0, rxUsecs, rxFrames }, 64);
      let [now, oldest, lost] = [0, Infinity, 0];
      for (let step = 0; step < 400; step++) {
        const us = below(3) === 0 ? below(60) : below(3);
        const frames = below(2) * below(6);
        now += us;
        let calls = world.pass(us);
        if (frames > 0) oldest = Math.min(oldest, now);
        if (frames > 0) calls += world.deliver(frames);
        if (calls > 0) {
          world.serve();
          oldest = Infinity;
        } else if (now - oldest > rxUsecs) lost++;
      }
      assertEquals(lost, 0, `seed ${seed}, run ${run}: ${rxUsecs} µs, ${rxFrames} frames`);
    }
  });
}
