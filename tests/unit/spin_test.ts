/** How long a worker polls without work: longer where that saves sleeps, and never at another thread's cost. */
import { assert, assertEquals } from "@std/assert";
import { ThreadTimes } from "../../shared/os/mod.ts";
import { passesOf, SPIN_NS_MAX, SPIN_NS_MIN, SpinWindow } from "../../shared/engine/spin.ts";

/** A run that finds nothing. */
const RUN_NS = 5000;

/** A worker's times: what it ran, and what it waited for a CPU. */
class FakeTimes {
  ranNs = 0;
  waitedNs = 0;
  read(): void {}
}

/** A worker that polls, and what the scheduler says of it. */
class Worker {
  readonly times = new FakeTimes();
  readonly spin: SpinWindow;

  constructor(fixedNs?: number) {
    this.spin = new SpinWindow(fixedNs ?? this.times);
  }

  /** Polls without work from `fromNs` until the window is over, or `forNs`; other threads take their share of the CPU. */
  idle(fromNs: number, forNs: number, stolenShare = 0): { atNs: number; over: boolean } {
    let atNs = fromNs;
    while (atNs - fromNs < forNs) {
      if (this.spin.isOver(atNs, fromNs)) return { atNs, over: true };
      this.times.ranNs += RUN_NS;
      this.times.waitedNs += RUN_NS * stolenShare;
      atNs += RUN_NS * (1 + stolenShare);
    }
    return { atNs, over: false };
  }

  /** A stream with a frame each `gapNs`; answers how many of `frames` found the worker asleep. */
  stream(gapNs: number, frames: number, fromNs = 1, stolenShare = 0): number {
    let sleeps = 0;
    for (let i = 0; i < frames; i++) {
      const sinceNs = fromNs + i * gapNs;
      const { atNs, over } = this.idle(sinceNs, gapNs, stolenShare);
      if (!over) continue;
      sleeps++;
      this.spin.woken(sinceNs + gapNs - atNs, sinceNs + gapNs);
    }
    return sleeps;
  }
}

Deno.test("a stream of 1,000 frames/s soon finds the worker awake", () => {
  const worker = new Worker();
  worker.stream(1_000_000, 20);
  assertEquals(worker.stream(1_000_000, 200, 1e9), 0);
});

Deno.test("a frame now and then is not waited for: the worker sleeps after the shortest window", () => {
  const worker = new Worker();
  worker.stream(1_000_000, 20);
  assertEquals(worker.stream(50_000_000, 20, 1e9), 20);
  assertEquals(worker.spin.windowNs, SPIN_NS_MIN);
});

Deno.test("the window has an end, whatever comes", () => {
  const worker = new Worker();
  for (let gapNs = SPIN_NS_MIN; gapNs < 2 * SPIN_NS_MAX; gapNs += 100_000) worker.stream(gapNs, 10, gapNs * 1000);
  assert(worker.spin.windowNs <= SPIN_NS_MAX);
});

Deno.test("where other threads want the CPU, the worker sleeps at once, for a while", () => {
  const worker = new Worker();
  worker.stream(1_000_000, 20);
  worker.stream(1_000_000, 100, 1e9, 0.5);
  assertEquals(worker.spin.windowNs, 0);
  assertEquals(worker.stream(1_000_000, 100, 1.11e9), 100, "it sleeps each time while it backs off");
  assertEquals(worker.spin.windowNs, 0);
  worker.stream(1_000_000, 20, 2e9);
  assertEquals(worker.stream(1_000_000, 100, 3e9), 0, "it tries again after a while");
});

Deno.test("a worker that seldom waits for its CPU goes on polling", () => {
  const worker = new Worker();
  worker.stream(1_000_000, 20);
  assertEquals(worker.stream(1_000_000, 200, 1e9, 0.2), 0);
});

Deno.test("a thread's times are its own, and grow with what it does", () => {
  const times = new ThreadTimes();
  try {
    times.read();
    const before = times.ranNs;
    assert(before > 0);
    for (const end = performance.now() + 20; performance.now() < end;);
    times.read();
    assert(times.ranNs > before);
    assert(Number.isSafeInteger(times.waitedNs));
  } finally {
    times.close();
  }
});

Deno.test("a window that was said stays as it is", () => {
  for (const fixedNs of [0, 2_000_000]) {
    const worker = new Worker(fixedNs);
    worker.stream(3_000_000, 20);
    assertEquals(worker.spin.windowNs, fixedNs);
    assertEquals(worker.idle(1e9, 1e9).atNs, 1e9 + fixedNs);
  }
});

Deno.test("a run of a worker that is not to poll is short, however many queues there are", () => {
  for (const polled of [1, 2, 8, 100, 5000]) {
    const [short, long] = [passesOf(polled, 0), passesOf(polled, SPIN_NS_MIN)];
    assert(short >= 4 && long >= 1, `${short} and ${long} passes over ${polled}`);
    assert(short * polled <= Math.max(256, 4 * polled), `${short} passes over ${polled}`);
    if (polled <= 100) assert(short < long, `${short} and ${long} passes over ${polled}`);
  }
});
