/** Emulated mode's data paths on real services: chosen per VF while guests run, and nothing is lost. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { checkedStream, must, setMode, Stream, TestGuest } from "../support/guests.ts";

const PATHS = ["copy", "zerocopy", "headersplit"] as const;

const CHANGES = 200;

/** Emulated mode with a data path. */
function on(dataPath: string) {
  return { mode: "emulated", dataPath };
}

Deno.test("guest and guest on every pair of data paths: ping and checked streams", async (t) => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  for (const left of PATHS) {
    for (const right of PATHS) {
      await t.step(`${left} and ${right}`, async () => {
        await setMode(fabric, 0, on(left));
        await setMode(fabric, 1, on(right));
        assertEquals((await a.ping(b.ip, 3)).received, 3);
        assertEquals((await a.ping(b.ip, 3, { size: 1472 })).received, 3);
        await checkedStream(a, b, { rate: 20_000, size: 128, count: 4000 });
        await checkedStream(b, a, { rate: 5000, size: 1514, count: 1000 });
        const { mode, dataPath, frames } = await must(`${fabric.info.api}/api/v1/vfs/0/mode`);
        assertEquals([mode, dataPath], ["emulated", left]);
        const vf = await must(`${fabric.info.api}/api/v1/vfs/0`);
        assertEquals([vf.mode, vf.dataPath], ["emulated", left]);
        if (left === "copy") return assertEquals(frames, undefined);
        assert(frames.sentDirect >= 4000, JSON.stringify(frames));
        assert(frames.receivedDirect > frames.receivedCopied, JSON.stringify(frames));
      });
    }
  }
});

Deno.test(`${CHANGES} changes of data path and mode under two checked streams: nothing lost, doubled, reordered`, async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const streams = [
    await Stream.start(a, b, { rate: 5000, size: 128 }),
    await Stream.start(b, a, { rate: 2000, size: 1514 }),
  ];
  const others = [{ mode: "passthrough", plugin: "advanced" }, { mode: "passthrough", plugin: "virtio" }];
  for (let i = 0; i < CHANGES; i++) {
    const path = PATHS[(i >> 1) % PATHS.length] as string;
    await setMode(fabric, i % 2, i % 10 < 8 ? on(path) : others[(i >> 1) % 2] as Record<string, unknown>);
  }
  for (const stream of streams) await stream.end();
});
