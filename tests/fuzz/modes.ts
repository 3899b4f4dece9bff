/** Changes of mode, one every 100 ms, under a checked stream of 50,000 frames a second. */
import { TestFabric } from "../support/fabric.ts";
import { setMode, Stream, TestGuest } from "../support/guests.ts";

const EVERY_MS = 100;
const STREAM = { rate: 50_000, size: 128 };

/** What a run has seen. */
export interface ModesDone {
  changes: number;
  frames: number;
  /** The longest time from a change's request to its answer. */
  longestMs: number;
}

/**
 * Changes the modes of two guests in turn for `seconds`. Throws if a frame of the stream between them is lost, comes
 * twice or out of order, or if a change fails.
 */
export async function changeModes(seconds: number): Promise<ModesDone> {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const stream = await Stream.start(a, b, STREAM);
  const began = performance.now();
  let [changes, longestMs] = [0, 0];
  for (let due = began; due < began + seconds * 1000; due += EVERY_MS) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
    const plugin = (changes >> 2) % 2 === 0 ? "advanced" : "virtio";
    const asked = performance.now();
    await setMode(
      fabric,
      (changes >> 1) % 2,
      changes % 2 === 0 ? { mode: "passthrough", plugin } : { mode: "emulated" },
    );
    longestMs = Math.max(longestMs, performance.now() - asked);
    changes++;
  }
  return { changes, frames: await stream.end(), longestMs };
}
