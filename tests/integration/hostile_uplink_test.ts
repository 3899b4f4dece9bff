/** What comes from outside is nobody's friend: an uplink's frames that lie, and honest ones among them. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { readFrames, writeCapture } from "../support/capture_files.ts";
import { setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

const OUTSIDER = "02:77:00:00:00:01";
const NOBODY = "02:99:00:00:00:09";

const mac = (text: string) => text.split(":").map((byte) => parseInt(byte, 16));

/** A frame of at least `bytes` bytes; its last four are its number. */
function frame(to: string, from: string, rest: number[], number: number, bytes = 60): Uint8Array<ArrayBuffer> {
  const head = [...mac(to), ...mac(from), ...rest];
  const frame = new Uint8Array(Math.max(bytes, head.length));
  frame.set(head);
  if (frame.length >= head.length + 4) new DataView(frame.buffer).setUint32(frame.length - 4, number);
  return frame;
}

Deno.test("frames of an uplink that lie go nowhere, and the honest ones among them all arrive", async () => {
  await using fabric = await TestFabric.start(2);
  const [own, other] = [fabric.vf(0).mac, fabric.vf(1).mac];
  const [from, into] = [`${fabric.runDir}/from.pcap`, `${fabric.runDir}/into.pcapng`];
  const plain = [0x88, 0xb5];
  const hostile = [
    // Tags that nobody has, stacked ones, and one that is cut off.
    frame(own, OUTSIDER, [0x81, 0, 0, 5, ...plain], 0),
    frame(own, OUTSIDER, [0x81, 0, 0x0f, 0xff, ...plain], 0),
    frame(own, OUTSIDER, [0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, ...plain], 0),
    frame(own, OUTSIDER, [0x81, 0, 0], 0, 15),
    frame(own, OUTSIDER, [0x81, 0, 0, 5], 0, 16),
    // Sources that no frame can have.
    frame(own, "01:00:5e:00:00:01", plain, 0),
    frame(own, "ff:ff:ff:ff:ff:ff", plain, 0),
    frame(own, "00:00:00:00:00:00", plain, 0),
    // To addresses that are not here, and the uplink's own.
    frame(NOBODY, OUTSIDER, plain, 0),
    frame("00:00:00:00:00:00", OUTSIDER, plain, 0),
    // Longer than any frame, shorter than any frame.
    frame(own, OUTSIDER, plain, 0, 65_600),
    frame(own, OUTSIDER, [], 0, 13),
    frame(own, OUTSIDER, [], 0, 6),
  ];
  const honest = Array.from({ length: 500 }, (_, i) => frame(own, OUTSIDER, plain, i + 1, 60 + i % 1400));
  writeCapture(from, honest.flatMap((one, i) => [one, hostile[i % hostile.length] as Uint8Array<ArrayBuffer>]), 100);
  await setUplink(fabric, { kind: "pcap", record: into }, "0");
  await setUplink(fabric, { kind: "pcap", replay: from });
  await until("the replay to end", async () => (await uplinkOf(fabric)).state === "down", 30_000);
  await setUplink(fabric, { kind: "none" }, "0");
  assertEquals(readFrames(into), honest);

  const { uplink } = await must(`${fabric.url("nic")}/api/v1/state`);
  const { counters } = uplink;
  const { tx_bad_source, tx_runt, tx_oversize } = counters;
  assert(tx_bad_source >= 100 && tx_runt >= 70 && tx_oversize >= 38, JSON.stringify(counters));
  assertEquals(uplink.queues.map(({ state }: { state: string }) => state), ["running", "running"]);
  assert((await uplinkOf(fabric)).counters.in_cut_off as number >= 70);
  assertEquals((await fabric.counters(1)).rx_frames, 0, other);
});

Deno.test("who says outside that it is a VF of ours gets none of that VF's frames", async () => {
  await using fabric = await TestFabric.start(2);
  const [own, other] = [fabric.vf(0).mac, fabric.vf(1).mac];
  const paths = ["outside", "inside", "at0", "at1"].map((name) => `${fabric.runDir}/${name}.pcapng`);
  const [outside, inside, at0, at1] = paths as [string, string, string, string];
  // Outside somebody sends with VF 0's address, again and again, while VF 1 sends to VF 0.
  writeCapture(outside, Array.from({ length: 500 }, (_, i) => frame(other, own, [0x88, 0xb5], i)), 1000);
  const sent = Array.from({ length: 500 }, (_, i) => frame(own, other, [0x88, 0xb5], i));
  writeCapture(inside, sent, 1000);
  await setUplink(fabric, { kind: "pcap", replay: outside, record: at1 });
  await setUplink(fabric, { kind: "pcap", record: at0 }, "0");
  await setUplink(fabric, { kind: "pcap", replay: inside }, "1");
  await until("VF 1 to have sent", async () => (await uplinkOf(fabric, "1")).state === "down", 30_000);
  await setUplink(fabric, { kind: "none" }, "0");
  await setUplink(fabric, { kind: "none" });
  assertEquals(readFrames(at0), sent);
  assertEquals(readFrames(at1), []);
});
