/** What a guest says of a flow that comes in: here the longest time without a frame, by which an outage is known. */
import { assert, assertEquals } from "@std/assert";
import { TestHost } from "../support/guest_host.ts";

const NONE = { tx: 0, rx: 0 };
const TRAFFIC = { rate: 0, size: 128, port: 9, echo: false, segment: false } as const;
const MS = 1e6;

function carry(from: TestHost, to: TestHost): number {
  const frames = from.take();
  for (const frame of frames) assert(frame instanceof Uint8Array && to.arrives(frame));
  return frames.length;
}

Deno.test("a flow's longest gap is the longest time between two frames, not the one before the first", () => {
  const a = new TestHost("10.0.0.1", "02:00:00:00:00:01", NONE);
  const b = new TestHost("10.0.0.2", "02:00:00:00:00:02", NONE);
  a.host.startTraffic({ ...TRAFFIC, to: b.ip, count: 1 });
  for (let i = 0; i < 4; i++) {
    for (const host of [a, b]) host.pass();
    carry(a, b);
    carry(b, a);
  }
  for (const host of [a, b]) host.host.clearFlows();

  a.host.startTraffic({ ...TRAFFIC, to: b.ip, count: 4 });
  a.pass();
  for (const [i, frame] of a.take().entries()) {
    b.nowNs += [20 * MS, MS, 9 * MS, 3 * MS][i] ?? 0;
    assert(frame instanceof Uint8Array && b.arrives(frame));
  }
  const [flow] = b.host.flows();
  assertEquals([flow?.received, flow?.longestGapUs], [4, 9000]);
});
