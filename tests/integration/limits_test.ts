/** hostile.md 10: a guest that posts huge numbers of buffers, maps too much, or gives nothing back, whoever serves it. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Bystanders } from "../support/bystanders.ts";
import { TestFabric } from "../support/fabric.ts";
import { BackEndClosed, FrontEnd } from "../support/front_end.ts";
import { must, setMode } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";
import { authorized } from "../support/token.ts";

const LIMITED = ["--vf-receives", "4096", "--vf-submissions", "2048", "--vf-memory-mib", "64"];
const MIB = 1024 ** 2;

async function metric(fabric: TestFabric, line: RegExp): Promise<string | undefined> {
  const text = await (await authorized(`${fabric.info.api}/metrics`)).text();
  return line.exec(text)?.[1];
}

for (const way of ["passthrough", "emulated"] as const) {
  Deno.test(`${way}: 10 receives and submissions beyond the limit are refused by name; neighbours do not notice`, async () => {
    await using fabric = await TestFabric.start(3, LIMITED);
    await using bystanders = await Bystanders.attach(fabric);
    const greedy = FrontEnd.connect(fabric.vf(2).socket, { bytes: 32 * MIB, queueSize: 2048, queuePairs: 3 });
    await using _ = greedy;
    await greedy.negotiate();
    await greedy.shareMemory();
    // Rings of 2,048: two that receive are the limit, and one that sends.
    assertEquals([await greedy.startVring(0), await greedy.startVring(1)], [0n, 0n]);
    if (way === "emulated") await setMode(fabric, 2, { mode: "emulated" });
    assertEquals(await greedy.startVring(2), 0n);
    assertEquals([await greedy.startVring(3), await greedy.startVring(4)], [1n, 1n]);
    await bystanders.check();

    for (const pair of [0, 1]) greedy.guest.fill(2048, pair);
    const vf = await fabric.get("/api/v1/vfs/2");
    assertEquals(vf.limits.receives, { used: 4096, limit: 4096, posted: 4096 });
    assertEquals(vf.limits.submissions, { used: 2048, limit: 2048, posted: 0 });
    assertEquals(vf.limits.refused, { "submission-limit": 1, "receive-limit": 1 });
    const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/2`);
    assertMatch(session.lastRefusal, /queue 4 of size 2048: 4096 are in use, and there may be 4096 entries of receive/);
    // What it has goes on: its neighbours reach it, and it them.
    const [sender] = bystanders.guests;
    sender.guest.send([frame({ dst: fabric.vf(2).mac, src: fabric.vf(0).mac })]);
    sender.kick();
    await until("the greedy guest's frame", () => [0, 1].some((pair) => greedy.guest.receive(pair).length === 1));
    await bystanders.check();
    if (way === "emulated") return;
    assertEquals(await metric(fabric, /ringfabric_vf_limit_receive_entries\{vf="2"\} (\d+)/), "4096");
    assertEquals(await metric(fabric, /ringfabric_vf_receive_entries\{vf="2"\} (\d+)/), "4096");
    assertEquals(await metric(fabric, /vf_limit_refusals_total\{vf="2",limit="receive-limit"\} (\d+)/), "1");
  });
}

Deno.test("10 a front-end that asks for no answer is told by the end of its connection, and another may come", async () => {
  await using fabric = await TestFabric.start(3, LIMITED);
  await using bystanders = await Bystanders.attach(fabric);
  await using greedy = FrontEnd.connect(fabric.vf(2).socket, { bytes: 32 * MIB, queueSize: 8192 });
  await greedy.negotiate();
  await greedy.shareMemory();
  const closed = await greedy.startVring(0).then((code) => code, (error) => error);
  if (!(closed instanceof BackEndClosed)) assertEquals(closed, 1n);
  greedy.socket.close();
  await until("the next guest to attach", async () => {
    try {
      await using next = await FrontEnd.connect(fabric.vf(2).socket).start();
      return (await fabric.get("/api/v1/vfs/2")).limits.receives.used === next.guest.rx().size;
    } catch (error) {
      if (!(error instanceof BackEndClosed)) throw error;
    }
  });
  await bystanders.check();
});

Deno.test("10 frames that wait for a guest which takes none are within its limit, and counted beyond it", async () => {
  await using fabric = await TestFabric.start(3, ["--vf-buffer-kib", "128"]);
  await using bystanders = await Bystanders.attach(fabric);
  await using silent = await FrontEnd.connect(fabric.vf(2).socket).start();
  const [sender] = bystanders.guests;
  const frames = Array.from({ length: 16 }, () => frame({ dst: fabric.vf(2).mac, src: fabric.vf(0).mac }));
  await until("frames to be dropped for want of room", async () => {
    sender.guest.room();
    sender.guest.send(frames);
    sender.kick();
    await until("the frames to be taken", () => sender.guest.unsent() === 0);
    const { limits } = await fabric.get("/api/v1/vfs/2");
    assert(limits.buffered.used <= limits.buffered.limit);
    assertEquals(limits.buffered.limit, 128 * 1024);
    const { rx_no_buffer } = await fabric.counters(2);
    return limits.buffered.used === limits.buffered.limit && (rx_no_buffer ?? 0) > 0;
  });
  assertEquals(await metric(fabric, /ringfabric_vf_buffered_bytes\{vf="2"\} (\d+)/), String(128 * 1024));
  await bystanders.check();
  // It comes back: what waited reaches it, in the order in which it was sent.
  let came = 0;
  await until("what has waited", () => {
    silent.guest.fill(32 - silent.guest.posted());
    silent.kick(0);
    came += silent.guest.receive().length;
    return came >= 128 * 1024 / 512;
  });
  assertEquals((await fabric.get("/api/v1/vfs/2")).limits.buffered.used, 0);
});
