/** Budgets of work, on a clock of the test's own: what is bounded, what is free, and who waits for whom. */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { type Clock, Pace } from "../../shared/async/mod.ts";
import { requestCost } from "../../shared/engine/mod.ts";

/** A clock that goes on when everybody waits. */
class TestClock implements Clock {
  #now = 0;
  readonly #sleepers: { at: number; wake(): void }[] = [];

  now(): number {
    return this.#now;
  }

  wait(ms: number): Promise<void> {
    return new Promise((wake) => this.#sleepers.push({ at: this.#now + ms, wake }));
  }

  /** Runs until `end`. */
  async until(end: number): Promise<void> {
    for (;;) {
      // Whoever was woken has had time to ask again.
      await new Promise<void>((resolve) => setImmediate(resolve));
      const next = this.#sleepers.sort((a, b) => a.at - b.at)[0];
      if (!next || next.at > end) break;
      this.#now = next.at;
      this.#sleepers.shift();
      next.wake();
    }
    this.#now = end;
  }
}

/** A client that asks again as soon as it is served; notes when it was served how many units. */
class Flood {
  readonly served: { at: number; cost: number }[] = [];
  #stopped = false;

  constructor(pace: Pace, clock: Clock, cost: () => number) {
    void this.#run(pace, clock, cost);
  }

  async #run(pace: Pace, clock: Clock, cost: () => number): Promise<void> {
    while (!this.#stopped) {
      const units = cost();
      await pace.step(units);
      this.served.push({ at: clock.now(), cost: units });
      // One that never waits would never let the clock go on.
      if (this.served.length % 64 === 0) await clock.wait(0);
    }
  }

  stop(): void {
    this.#stopped = true;
  }

  get units(): number {
    return this.served.reduce((sum, { cost }) => sum + cost, 0);
  }
}

/** Most units that were served in any `ms` milliseconds in a row. */
function most(served: readonly { at: number; cost: number }[], ms: number): number {
  let [sum, from, top] = [0, 0, 0];
  for (const { at, cost } of served) {
    sum += cost;
    for (; (served[from]?.at ?? at) < at - ms; from++) sum -= served[from]?.cost ?? 0;
    top = Math.max(top, sum);
  }
  return top;
}

Deno.test("a burst is free; after it a client gets its rate, and never more", async () => {
  const clock = new TestClock();
  const flood = new Flood(new Pace({ perSecond: 1000, burst: 100 }, undefined, clock), clock, () => 1);
  await clock.until(0);
  assertEquals(flood.units, 100);
  await clock.until(5000);
  assertEquals(flood.units, 5100);
  assert(most(flood.served, 1000) <= 1102, `${most(flood.served, 1000)} units in a second`);
  flood.stop();
  await clock.until(5200);
});

Deno.test("what a client did not use does not add up beyond the burst", async () => {
  const clock = new TestClock();
  const pace = new Pace({ perSecond: 1000, burst: 100 }, undefined, clock);
  await clock.until(3_600_000);
  const flood = new Flood(pace, clock, () => 10);
  await clock.until(3_600_000);
  assertEquals(flood.units, 100);
  await clock.until(3_601_000);
  assertEquals(flood.units, 1100);
  flood.stop();
  await clock.until(3_602_000);
});

Deno.test("a request that costs more than the burst waits, and is served", async () => {
  const clock = new TestClock();
  const pace = new Pace({ perSecond: 1000, burst: 100 }, undefined, clock);
  let at = -1;
  void pace.step(300).then(() => at = clock.now());
  await clock.until(1000);
  assertEquals(at, 200);
});

Deno.test("a client that is exhausted waits for what it is charged, once, and so does the shared budget", async () => {
  const clock = new TestClock();
  const shared = new Pace({ perSecond: 2000, burst: 500 }, undefined, clock);
  const pace = new Pace({ perSecond: 1000, burst: 100 }, shared, clock);
  for (let i = 0; i < 30; i++) pace.exhaust(50);
  const at: number[] = [];
  void pace.step(1).then(() => at.push(clock.now()));
  await clock.until(1000);
  assertEquals(at, [51]);
  // The shared budget has lost the reserve of one client and what it was charged, not thirty times that.
  for (let i = 0; i < 30; i++) pace.exhaust(50);
  void shared.step(360).then(() => at.push(clock.now()));
  await clock.until(1000);
  void shared.step(10).then(() => at.push(clock.now()));
  await clock.until(2000);
  assertEquals(at, [51, 1005, 1010]);
});

Deno.test("requests of one client that wait are served in their order", async () => {
  const clock = new TestClock();
  const pace = new Pace({ perSecond: 1000, burst: 10 }, undefined, clock);
  const order: number[] = [];
  for (let i = 0; i < 50; i++) void pace.step(1 + i % 7).then(() => order.push(i));
  await clock.until(1000);
  assertEquals(order, Array.from({ length: 50 }, (_, i) => i));
});

Deno.test("all clients together keep to the shared budget, each gets its part, and a quiet one hardly waits", async () => {
  const clock = new TestClock();
  const shared = new Pace({ perSecond: 1000, burst: 200 }, undefined, clock);
  const own = () => new Pace({ perSecond: 400, burst: 100 }, shared, clock);
  const floods = Array.from({ length: 10 }, () => new Flood(own(), clock, () => 5));
  await clock.until(10_000);
  // A client that asks now and then waits for one request of each other client, not for all that they would like.
  const quiet = own();
  let waited = 0;
  for (let i = 1; i <= 20; i++) {
    const asked = clock.now();
    void quiet.step(5).then(() => waited = Math.max(waited, clock.now() - asked));
    await clock.until(asked + 200);
  }
  assert(waited <= 11 * 5 + 1, `it waited ${waited} ms`);
  const all = floods.flatMap(({ served }) => served).sort((a, b) => a.at - b.at);
  assert(most(all, 1000) <= 1200 + 10, `${most(all, 1000)} units in a second`);
  const shares = floods.map(({ units }) => units);
  assert(Math.max(...shares) - Math.min(...shares) <= 100, `shares: ${shares}`);
  for (const flood of floods) flood.stop();
  await clock.until(20_000);
});

Deno.test("whatever is asked for when, no stretch of time has more than the budget and the burst", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ afterMs: fc.nat(300), cost: fc.integer({ min: 1, max: 65 }), count: fc.nat(8) }), {
        maxLength: 20,
        size: "max",
      }),
      fc.integer({ min: 1, max: 2000 }),
      async (requests, window) => {
        const clock = new TestClock();
        const pace = new Pace({ perSecond: 1280, burst: 256 }, undefined, clock);
        const served: { at: number; cost: number }[] = [];
        let asked = 0;
        for (const { afterMs, cost, count } of requests) {
          await clock.until(clock.now() + afterMs);
          for (let i = 0; i < count; i++, asked++) {
            void pace.step(cost).then(() => served.push({ at: clock.now(), cost }));
          }
        }
        await clock.until(clock.now() + 60_000);
        assertEquals(served.length, asked);
        // A wait is whole milliseconds long.
        const budget = 256 + (window + 1) * 1.28;
        assert(most(served, window) <= budget, `${most(served, window)} units in ${window} ms: more than ${budget}`);
      },
    ),
    { numRuns: 40 },
  );
});

Deno.test("a request costs one unit, and one more for each region that it names", () => {
  const region = { iova: 0n, size: 4096, offset: 0 };
  assertEquals(requestCost({ op: "queueStop", index: 0 }), 1);
  assertEquals(requestCost({ op: "dmaSet", regions: [] }), 1);
  assertEquals(requestCost({ op: "dmaSet", regions: Array.from({ length: 64 }, () => region) }), 65);
  assertEquals(requestCost({ op: "dmaMap", region }), 2);
  assertEquals(requestCost({ op: "dmaUnmap", iova: 0n, size: 4096 }), 2);
});
