/** How long a worker polls without work: longer where that saves sleeps, and never at another thread's cost. */
import { assert, assertEquals } from "@std/assert";
import { SPIN_NS_MAX, SPIN_NS_MIN, SpinWindow } from "../../shared/engine/spin.ts";

/** A run that finds nothing. */
const RUN_NS = 5000;

/** Polls without work from `fromNs` until the window is over, or `forNs`; another thread takes each `stolenNs`. */
function idle(spin: SpinWindow, fromNs: number, forNs: number, stolenNs = 0): { atNs: number; over: boolean } {
  let atNs = fromNs;
  for (let runs = 0; atNs - fromNs < forNs; runs++) {
    if (spin.isOver(atNs, fromNs)) return { atNs, over: true };
    atNs += RUN_NS + (runs % 20 === 19 ? stolenNs : 0);
  }
  return { atNs, over: false };
}

/** A stream with a frame each `gapNs`; answers how many of `frames` found the worker asleep. */
function stream(spin: SpinWindow, gapNs: number, frames: number, fromNs = 1, stolenNs = 0): number {
  let sleeps = 0;
  for (let i = 0; i < frames; i++) {
    const sinceNs = fromNs + i * gapNs;
    const { atNs, over } = idle(spin, sinceNs, gapNs, stolenNs);
    if (!over) continue;
    sleeps++;
    spin.woken(sinceNs + gapNs - atNs, sinceNs + gapNs);
  }
  return sleeps;
}

Deno.test("a stream of 1,000 frames/s soon finds the worker awake", () => {
  const spin = new SpinWindow();
  stream(spin, 1_000_000, 20);
  assertEquals(stream(spin, 1_000_000, 200, 1e9), 0);
});

Deno.test("a frame now and then is not waited for: the worker sleeps after the shortest window", () => {
  const spin = new SpinWindow();
  stream(spin, 1_000_000, 20);
  assertEquals(stream(spin, 50_000_000, 20, 1e9), 20);
  assertEquals(spin.windowNs, SPIN_NS_MIN);
});

Deno.test("the window has an end, whatever comes", () => {
  const spin = new SpinWindow();
  for (let gapNs = SPIN_NS_MIN; gapNs < 2 * SPIN_NS_MAX; gapNs += 100_000) stream(spin, gapNs, 10, gapNs * 1000);
  assert(spin.windowNs <= SPIN_NS_MAX);
});

Deno.test("where another thread wants the CPU, the worker goes back to the shortest window, for a while", () => {
  const spin = new SpinWindow();
  stream(spin, 1_000_000, 100, 1, 150_000);
  assertEquals(spin.windowNs, SPIN_NS_MIN);
  assertEquals(stream(spin, 1_000_000, 100, 110_000_000), 100, "it sleeps each time while it backs off");
  stream(spin, 1_000_000, 20, 2e9);
  assertEquals(stream(spin, 1_000_000, 100, 3e9), 0, "it tries again after a while");
});

Deno.test("a window that was said stays as it is", () => {
  for (const fixedNs of [0, 2_000_000]) {
    const spin = new SpinWindow(fixedNs);
    stream(spin, 3_000_000, 20);
    assertEquals(spin.windowNs, fixedNs);
    assertEquals(idle(spin, 1e9, 1e9).atNs, 1e9 + fixedNs);
  }
});
