/** Pauses between looks for what is away: short at first, then in proportion, and bounded. */
import { assertEquals } from "@std/assert";
import { beforeNextLook, pauseMs } from "../../shared/async/mod.ts";
import { VirtualTime } from "../support/virtual_time.ts";

Deno.test("a look comes late by a fortieth of the time, by 10 ms at least and by 200 ms at most", () => {
  const cases = [[0, 10], [400, 10], [800, 20], [1000, 25], [8000, 200], [1e9, 200]] as const;
  for (const [awayMs, expected] of cases) assertEquals(pauseMs(awayMs), expected);
  // A clock that was set back.
  assertEquals(pauseMs(-1e6), 10);
});

Deno.test("what comes back after half a second is found within 13 ms, with some fifty looks", async () => {
  using time = new VirtualTime();
  const sinceMs = performance.now();
  let looks = 0;
  for (; performance.now() - sinceMs < 500; looks++) await time.run(beforeNextLook(sinceMs));
  const lateMs = performance.now() - sinceMs - 500;
  assertEquals([lateMs >= 0 && lateMs <= 13, looks > 30 && looks < 60], [true, true], `${lateMs} ms, ${looks} looks`);
});
