/**
 * Captures as Wireshark's own programs read them: VF 0 sends what it may not send, and what VF 1 does not take; each
 * frame is in the capture, with the reason why it did not arrive.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { cli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { judgedTest, run } from "../support/judges.ts";
import { frame } from "../support/mock_guest.ts";
import { TestProcess } from "../support/process.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

const BUFFERS = 4;
const BIG = 60_000;
const BIG_AT_ONCE = 10;

/** `fabric capture` into a file, once it is open. */
async function startCapture(fabric: TestFabric, file: string, ...args: string[]): Promise<TestProcess> {
  const process = new TestProcess("fabric capture", Deno.execPath(), [
    ...["run", "-A", "--quiet", "services/cli/main.ts", "--run-dir", fabric.runDir],
    ...["capture", ...args, "-w", file],
  ]);
  await until(`${file} to be begun`, async () => {
    assertEquals(process.exited, undefined, process.all);
    return await Deno.stat(file).then(({ size }) => size > 0, () => false);
  }, 20_000);
  return process;
}

/** What tshark reads of a capture, a line for each frame. */
async function linesOf(file: string): Promise<string[]> {
  const fields = [
    "frame.interface_name",
    "frame.packet_flags_direction",
    "frame.len",
    "frame.cap_len",
    "frame.comment",
  ];
  const text = await run("tshark", ["-r", file, "-n", "-T", "fields", ...fields.flatMap((name) => ["-e", name])]);
  const directions: Record<string, string> = { "0x00000001": "in", "0x00000002": "out" };
  return text.trimEnd().split("\n").map((line) => line.split("\t"))
    .map(([name, direction = "", ...rest]) => [name, directions[direction] ?? direction, ...rest].join(" ").trimEnd());
}

judgedTest(["tshark"], "tshark and capinfos open captures; each frame that was dropped says why", async () => {
  await using fabric = await TestFabric.start(2);
  await using sender = await FrontEnd.connect(fabric.vf(0).socket).start();
  await using receiver = await FrontEnd.connect(fabric.vf(1).socket).start();
  await fabric.patch(0, { spoofCheck: true, trunk: [5] });
  receiver.guest.fill(BUFFERS);
  receiver.kick(0);
  const [all, drops] = [`${fabric.runDir}/all.pcapng`, `${fabric.runDir}/drops.pcapng`];
  const [src, dst] = [fabric.vf(0).mac, fabric.vf(1).mac];
  {
    await using whole = await startCapture(fabric, all, "all", "--snap", "128");
    await using few = await startCapture(fabric, drops, "0", "--dropped");
    const streamed = await authorized(`${fabric.info.api}/api/v1/vfs/1/capture?filter=ether+src+${src}+and+vlan`);
    sender.guest.send([
      frame({ src: "02:99:99:99:99:99", dst }),
      frame({ src, dst, tags: [{ vid: 6 }] }),
    ]);
    sender.guest.sendPieces(frame({ src, dst, bytes: 65_540 }), [12, 40_000]);
    sender.guest.send(Array.from({ length: BUFFERS }, () => frame({ src, dst, bytes: 300 })));
    const take = async () => {
      sender.kick();
      await until("all frames to be taken", () => sender.guest.unsent() === 0);
    };
    await take();
    // The receiver posts no more buffers: what comes waits in its packet buffer, and is dropped when that is full.
    const isFull = async () => ((await fabric.counters(1)).rx_no_buffer ?? 0) > 0;
    for (let sent = 0; sent < 200 && !(await isFull()); sent += BIG_AT_ONCE) {
      for (let i = 0; i < BIG_AT_ONCE; i++) sender.guest.sendPieces(frame({ src, dst, bytes: BIG }), [12]);
      await take();
    }
    for (const [process, file] of [[whole, all], [few, drops]] as const) {
      await until(`${file} to grow no more`, async () => {
        const { size } = await Deno.stat(file);
        await new Promise((done) => setTimeout(done, 100));
        return size > 500 && (await Deno.stat(file)).size === size;
      });
      const { code } = await process.end("SIGINT");
      assertEquals(code, 0, process.all);
      assertStringIncludes(process.output, `frames to ${file}`);
    }
    await streamed.body?.cancel();
  }
  const reasons = [
    "vf0 out 64 64 dropped: tx_spoofed",
    "vf0 out 64 64 dropped: tx_vlan_denied",
    "vf0 out 65540 128 dropped: tx_oversize",
  ];
  const lines = await linesOf(all);
  const { tx_frames = 0 } = await fabric.counters(0);
  assertEquals(lines.filter((line) => line.startsWith("vf0")), [
    ...reasons,
    ...new Array(BUFFERS).fill("vf0 out 300 128"),
    ...new Array(tx_frames - BUFFERS).fill(`vf0 out ${BIG} 128`),
  ]);
  const { rx_frames = 0, rx_no_buffer = 0 } = await fabric.counters(1);
  assert(rx_no_buffer > 0);
  assertEquals(rx_frames, BUFFERS);
  assertEquals(lines.filter((line) => line.startsWith("vf1")), [
    ...new Array(BUFFERS).fill("vf1 in 300 128"),
    ...new Array(rx_no_buffer).fill(`vf1 in ${BIG} 128 dropped: rx_no_buffer`),
  ]);
  assertEquals(await linesOf(drops), reasons.map((line) => line.replace(" 128 ", " 65540 ")));

  const infos = await run("capinfos", ["-M", all]);
  assertStringIncludes(infos, "pcapng");
  assertStringIncludes(infos, "Number of interfaces in file: 4");
  assertStringIncludes(infos, "Time precision = nanoseconds (9)");
  assertStringIncludes(infos, `Number of packets:   ${lines.length}`);
  assertStringIncludes(infos, "Capture length = 128");

  const refused = await cli(fabric, "capture", "0", "--filter", "tcp prot 80", "-w", `${fabric.runDir}/none`);
  assertEquals([refused.code, refused.err.includes('at character 5: "prot" follows a whole expression')], [1, true]);
  assertEquals((await cli(fabric, "capture", "7", "-w", `${fabric.runDir}/none`)).err.includes("vf 7"), true);
});
