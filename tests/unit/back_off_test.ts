/** When a service that has died is started again. */
import { assertEquals } from "@std/assert";
import { BackOff } from "../../services/up/back_off.ts";

/** Deaths one after the other, each after so many milliseconds of being ready; answers the pauses. */
function pausesAfter(backOff: BackOff, readyMs: readonly number[]): number[] {
  return readyMs.map((ms) => backOff.next(ms));
}

Deno.test("a service that dies at each start waits twice as long each time, up to five seconds", () => {
  const backOff = new BackOff();
  const pauses = pausesAfter(backOff, Array.from({ length: 9 }, () => 0));
  assertEquals(pauses, [0, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
  assertEquals(backOff.attempts, 9);
  for (let i = 0; i < 5000; i++) assertEquals(backOff.next(0), 5000);
});

Deno.test("a service that ran well is started again at once, and begins anew with its pauses", () => {
  const backOff = new BackOff();
  pausesAfter(backOff, [0, 0, 0, 0]);
  assertEquals(pausesAfter(backOff, [60_000, 60_000, 1999, 100, 2000]), [0, 0, 200, 400, 0]);
  assertEquals(backOff.attempts, 1);
});

Deno.test("whether there would be a pause is told without counting a death", () => {
  const backOff = new BackOff();
  assertEquals([backOff.isAtOnce(0), backOff.isAtOnce(0)], [true, true]);
  backOff.next(0);
  assertEquals([backOff.isAtOnce(1999), backOff.isAtOnce(2000), backOff.attempts], [false, true, 1]);
});
