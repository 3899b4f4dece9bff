/** Capture files as uplinks: what one has comes in, what goes out is recorded, every frame once and in its order. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { readFrames, writeCapture } from "../support/capture_files.ts";
import { checkedStream, TestGuest } from "../support/guests.ts";
import { TestFabric } from "../support/fabric.ts";
import { judgedTest, run } from "../support/judges.ts";
import { putUplink, setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

/** Writes a file of numbered frames to `mac`, one each `gapUs`, of lengths from 60 on. Answers the frames. */
function writeFrames(path: string, mac: string, { count = 1000, gapUs = 0, bytesMax = 1514 } = {}): Uint8Array[] {
  const frames = Array.from({ length: count }, (_, i) => {
    const frame = new Uint8Array(60 + i * 37 % (bytesMax - 59));
    frame.set(mac.split(":").map((byte) => parseInt(byte, 16)));
    frame.set([2, 0x77, 0, 0, 0, 1, 0x88, 0xb5], 6);
    new DataView(frame.buffer).setUint32(14, i);
    frame.fill(i & 0xff, 18);
    return frame;
  });
  writeCapture(path, frames, gapUs);
  return frames;
}

const numberOf = (frame: Uint8Array) => new DataView(frame.buffer).getUint32(14);

Deno.test("a file is replayed at the uplink, recorded at a VF: byte for byte, in order; what is lost is counted", async () => {
  await using fabric = await TestFabric.start(1);
  const [from, into] = [`${fabric.runDir}/from.pcap`, `${fabric.runDir}/into.pcapng`];
  const sent = writeFrames(from, fabric.vf(0).mac, { count: 20_000, bytesMax: 9014 });
  await setUplink(fabric, { kind: "pcap", record: into }, "0");
  await setUplink(fabric, { kind: "pcap", replay: from, speed: "full" });
  await until("the replay to end", async () => (await uplinkOf(fabric)).state === "down", 30_000);
  assertStringIncludes((await uplinkOf(fabric)).reason ?? "", "every frame of the file has been sent");
  assertEquals((await uplinkOf(fabric, "0")).io, "file");
  const { counters } = await setUplink(fabric, { kind: "none" }, "0");
  const got = readFrames(into);
  assertEquals([counters.out_frames, counters.out_refused], [got.length, 0]);
  assertEquals(got, got.map((frame) => sent[numberOf(frame)]));
  assertEquals(got.map(numberOf), [...got].map(numberOf).sort((a, b) => a - b));
  // As fast as they are taken by the NIC, which is faster than a recorder need be.
  const { rx_no_buffer = 0, rx_no_queue = 0 } = await fabric.counters(0);
  assertEquals(got.length + rx_no_buffer + rx_no_queue, sent.length);
});

Deno.test("the recorder is exchanged again and again under a replay: every frame is in one of its files, once", async () => {
  await using fabric = await TestFabric.start(1);
  const from = `${fabric.runDir}/from.pcap`;
  const sent = writeFrames(from, fabric.vf(0).mac, { count: 6000, gapUs: 1000 });
  const files = [0, 1, 2].map((i) => `${fabric.runDir}/into${i}.pcapng`);
  await setUplink(fabric, { kind: "pcap", record: files[0] as string }, "0");
  await setUplink(fabric, { kind: "pcap", replay: from });
  for (let i = 1; (await uplinkOf(fabric)).state === "up"; i++) {
    await setUplink(fabric, { kind: "pcap", record: files[i % 3] as string }, "0");
  }
  await setUplink(fabric, { kind: "none" }, "0");
  const got = files.flatMap(readFrames).sort((a, b) => numberOf(a) - numberOf(b));
  const numbers = got.map(numberOf);
  assertEquals(numbers.length, new Set(numbers).size);
  assertEquals(got, numbers.map((number) => sent[number]));
  // A recorder that does not run for a while, on a machine that has other things to do, is overrun, which is counted.
  const { rx_no_buffer = 0 } = await fabric.counters(0);
  assertEquals(got.length + rx_no_buffer, sent.length);
});

Deno.test("a replay that loops begins anew; one that is damaged says where; what is no capture is refused", async () => {
  await using fabric = await TestFabric.start(1);
  const from = `${fabric.runDir}/from.pcap`;
  writeFrames(from, fabric.vf(0).mac, { count: 100, gapUs: 10 });
  await setUplink(fabric, { kind: "pcap", replay: from, loop: true });
  await until("it to have begun anew", async () => ((await uplinkOf(fabric)).counters.in_frames ?? 0) > 1000);

  const whole = Deno.readFileSync(from);
  Deno.writeFileSync(from, whole.subarray(0, whole.length - 3));
  await setUplink(fabric, { kind: "pcap", replay: from, speed: "full" });
  const { reason } = await until("the damage to be seen", async () => {
    const state = await uplinkOf(fabric);
    return state.state === "down" && state;
  });
  assertStringIncludes(reason ?? "", "a frame is cut off");

  for (
    const [spec, said] of [
      [{ kind: "pcap", replay: `${fabric.runDir}/none.pcap` }, "there is no such file or folder"],
      [{ kind: "pcap", replay: `${fabric.runDir}/fabric.json` }, "it is no pcap or pcapng file"],
      [{ kind: "pcap", replay: "/dev/zero" }, "is no regular file"],
      [{ kind: "pcap", record: `${fabric.runDir}/fabric.json` }, "there is something else in it"],
      [{ kind: "pcap", record: "/proc/none/x" }, "there is no such file or folder"],
    ] as const
  ) {
    const { status, body } = await putUplink(fabric, spec);
    assertEquals(status, 409);
    assertStringIncludes(body.detail, said);
  }
});

judgedTest(
  ["tshark"],
  "what guests send to the outside is in the recording, and tshark finds nothing wrong with it",
  async () => {
    await using fabric = await TestFabric.start(2, ["--guests", "2"]);
    const into = `${fabric.runDir}/out.pcapng`;
    await setUplink(fabric, { kind: "pcap", record: into });
    const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
    await checkedStream(a, b, { count: 100, size: 200 });
    // Nobody has this address: the questions for it go out.
    assertEquals((await a.ping("10.0.99.9", 2, { timeoutMs: 200 })).received, 0);
    await until("the questions to go out", async () => ((await uplinkOf(fabric)).counters.out_frames ?? 0) > 0);
    await setUplink(fabric, { kind: "none" });
    const text = await run("tshark", ["-r", into, "-Y", "arp.dst.proto_ipv4 == 10.0.99.9"]);
    assert(text.trim().split("\n").length >= 1 && text.includes("Who has 10.0.99.9"), text);
    assertEquals((await run("tshark", ["-r", into, "-Y", "_ws.malformed || _ws.expert.severity == error"])).trim(), "");
  },
);
