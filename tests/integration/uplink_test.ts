/** What is behind the uplink: guests reach a TAP of the host, and whatever is beyond it, while uplinks come and go. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { must, TestGuest } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { Bridge, NetNamespace, uniqueName } from "../support/net_namespace.ts";
import { TestProcess } from "../support/process.ts";
import { UmlGuest } from "../support/uml.ts";
import { passTcp, putUplink, setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

/** Has a guest fetch 256 MiB from a namespace, and both say what they are. */
async function fetchFile(guest: UmlGuest, outside: NetNamespace, address: string): Promise<void> {
  const dir = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "ringfabric-" });
  try {
    await run("sh", ["-c", `head -c ${256 * 1024 ** 2} /dev/urandom > ${dir}/file`]);
    const [sum] = (await run("sha256sum", [`${dir}/file`])).split(" ");
    await using server = new TestProcess("http.server", "ip", [
      ...["netns", "exec", outside.name, "python3", "-u", "-m", "http.server", "--directory", dir, "8000"],
    ]);
    await server.expect(/Serving HTTP/);
    const got = await guest.check(`curl -sS http://${address}:8000/file | sha256sum`, 120_000);
    assertEquals(got.split(" ")[0], sum);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** What a port takes of the NIC's process: threads and open files, but for sockets, which HTTP clients have too. */
function belongings(fabric: TestFabric): number {
  const proc = `/proc/${fabric.pid("nic")}`;
  const threads = [...Deno.readDirSync(`${proc}/task`)].map(({ name }) => {
    return Deno.readTextFileSync(`${proc}/task/${name}/comm`);
  });
  const files = [...Deno.readDirSync(`${proc}/fd`)].map(({ name }) => {
    try {
      return Deno.readLinkSync(`${proc}/fd/${name}`);
    } catch {
      return "";
    }
  });
  return threads.filter((name) => name.startsWith("worker-")).length +
    files.filter((file) => /^(anon_inode|\/memfd|\/dev\/net)/.test(file)).length;
}

judgedTest(["uml"], "a guest of User-Mode Linux reaches a namespace through a TAP in a bridge", async () => {
  await using fabric = await TestFabric.start(1);
  await using bridge = await Bridge.make();
  await using outside = await NetNamespace.onBridge(bridge.name, "10.0.0.9/24");
  const tap = uniqueName("rft");
  const state = await setUplink(fabric, { kind: "tap", name: tap });
  assertEquals([state.interface, state.mtu], [tap, 1500]);
  await run("ip", ["link", "set", tap, "master", bridge.name]);
  await using guest = await UmlGuest.boot(fabric.vf(0).socket);
  await guest.address("10.0.0.1/24");
  await guest.untilReaches("10.0.0.9");

  await passTcp(guest, outside, "10.0.0.9");
  await fetchFile(guest, outside, "10.0.0.9");
  const { counters, io } = await uplinkOf(fabric);
  assert((counters.in_bytes ?? 0) > 1e6 && (counters.out_bytes ?? 0) > 1e6, JSON.stringify(counters));
  assert(io === "io_uring" || io === "readv");
});

judgedTest(
  ["uml"],
  "a TAP with an address puts the host in the guests' network; one that goes comes back",
  async (t) => {
    await using fabric = await TestFabric.start(1, ["--guests", "1"]);
    const guest = TestGuest.of(fabric, 0);
    const tap = uniqueName("rft");
    const before = belongings(fabric);

    await t.step("it has its address, and is up", async () => {
      await setUplink(fabric, { kind: "tap", name: tap, address: "10.0.99.1/16" });
      await until("the TAP to be up", async () => (await uplinkOf(fabric)).state === "up");
      await guest.reaches("10.0.99.1");
    });

    await t.step("its link is the interface's", async () => {
      await run("ip", ["link", "set", tap, "down"]);
      const { reason } = await until("the TAP to be down", async () => {
        const state = await uplinkOf(fabric);
        return state.state === "down" && state;
      });
      assertStringIncludes(reason ?? "", `ip link set ${tap} up`);
      await run("ip", ["link", "set", tap, "up"]);
      await guest.reaches("10.0.99.1");
    });

    await t.step("what cannot be is refused, and what was there stays", async () => {
      const { status, body } = await putUplink(fabric, { kind: "tap", name: "lo" });
      assertEquals(status, 409);
      assertStringIncludes(body.detail, "is no TAP");
      assertEquals((await putUplink(fabric, { kind: "tap", name: tap }, "7")).status, 404);
      await guest.reaches("10.0.99.1");
      assertEquals((await uplinkOf(fabric)).spec, { kind: "tap", name: tap, address: "10.0.99.1/16" });
    });

    await t.step("an interface that is deleted is made again", async () => {
      await run("ip", ["link", "del", tap]);
      await until("the guest to reach it again", async () => (await guest.ping("10.0.99.1", 1)).received === 1, 15_000);
      assertEquals((await uplinkOf(fabric)).state, "up");
    });

    await t.step("one that is kept is tried until it can be", async () => {
      await run("ip", ["link", "add", `${tap}k`, "type", "bridge"]);
      const kept = await putUplink(
        fabric,
        { kind: "tap", name: `${tap}k`, address: "10.0.99.2/16" },
        "uplink",
        "?keep=true",
      );
      assertEquals([kept.status, kept.body.state], [200, "failed"]);
      await run("ip", ["link", "del", `${tap}k`]);
      await until("it to be there", async () => (await uplinkOf(fabric)).state === "up", 15_000);
      await guest.reaches("10.0.99.2");
    });

    await t.step("nothing of them is left", async () => {
      await setUplink(fabric, { kind: "none" });
      assertEquals(await uplinkOf(fabric), undefined);
      // The runtime itself keeps an epoll and an eventfd of the thread that ended last.
      await until("the NIC to have given everything back", () => belongings(fabric) <= before + 2);
    });
  },
);

judgedTest(
  ["uml"],
  "uplinks are exchanged under a stream, again and again: what does not go out is counted",
  async () => {
    await using fabric = await TestFabric.start(1, ["--guests", "1"]);
    const guest = TestGuest.of(fabric, 0);
    const taps = [uniqueName("rft"), uniqueName("rft")] as const;
    const sums: Record<string, number> = {};
    const use = (i: number) => setUplink(fabric, { kind: "tap", name: taps[i % 2] as string });
    await setUplink(fabric, { kind: "tap", name: taps[0], address: "10.0.99.9/16" });
    await guest.reaches("10.0.99.9");
    // A neighbour that does not go with the TAP: the stream's frames are the uplink's all the time.
    const { id } = await guest.send("10.0.99.9", { rate: 1000, seconds: 60 });
    await use(1);
    const before = belongings(fabric);
    for (let i = 2; i <= 21; i++) await use(i);
    const { sent } = await guest.stop(id);
    await until("the last frame", async () => {
      Object.assign(sums, (await uplinkOf(fabric)).counters);
      const { rx_no_buffer } = (await must(`${fabric.url("nic")}/api/v1/state`)).uplink.counters;
      // A port that does not run for a while, on a machine that has other things to do, is overrun, which is counted.
      return (sums.out_frames ?? 0) + rx_no_buffer >= sent;
    });
    const drops = ["out_busy", "out_down", "out_refused", "out_too_long", "out_runt"].map((name) => sums[name]);
    assertEquals(drops, [0, 0, 0, 0, 0]);
    const { counters } = (await must(`${fabric.url("nic")}/api/v1/state`)).uplink;
    assertEquals(counters.rx_no_queue, 0);
    assert(sent > 1000, `${sent} frames were sent`);
    await until("the NIC to have given everything back", () => belongings(fabric) <= before);
  },
);
