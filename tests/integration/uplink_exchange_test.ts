/** What is behind the uplink changes under a TCP connection: the file arrives whole, and every frame outside is right. */
import { assert, assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import type { UplinkSpec } from "../../shared/api/mod.ts";
import { judgeCapture } from "../support/capture.ts";
import { TestFabric } from "../support/fabric.ts";
import { offloadsOf, TestFile, TRANSFER_PORT } from "../support/guest_transfer.ts";
import { judgedTest, run } from "../support/judges.ts";
import { Bridge, Cable, NetNamespace, uniqueName } from "../support/net_namespace.ts";
import { TestProcess } from "../support/process.ts";
import { UmlGuest } from "../support/uml.ts";
import { setUplink } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

const DUPLEX = fromFileUrl(new URL("../support/duplex.py", import.meta.url));
const FILE_BYTES = 16 * 1024 ** 2;
/** So that the file takes eight seconds at the least, and meets every uplink. */
const BYTES_PER_SECOND = 2 * 1024 ** 2;
const EXCHANGE_MS = 2000;
const EXCHANGES_MIN = 3;
const FRAME_BYTES_MAX = 1514;
const [GUEST, OUTSIDE] = ["10.0.0.1", "10.0.0.9"];

/** A TAP that stays when nobody has it open, on a bridge. */
async function makeTap(stack: AsyncDisposableStack, bridge: Bridge): Promise<string> {
  const tap = uniqueName("rft");
  await run("ip", ["tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr", "multi_queue"]);
  stack.defer(async () => void await run("ip", ["link", "del", tap]));
  await run("ip", ["link", "set", tap, "master", bridge.name, "up"]);
  return tap;
}

/** A namespace on the bridge that gets finished frames, as those on a wire are. */
async function makeOutside(stack: AsyncDisposableStack, bridge: Bridge): Promise<NetNamespace> {
  const port = uniqueName("rfv");
  const outside = stack.use(await NetNamespace.wired(port, `${OUTSIDE}/24`));
  await run("ip", ["link", "set", port, "master", bridge.name]);
  await run("ethtool", ["-K", port, "tx", "off", "tso", "off", "gso", "off"]);
  await outside.run("ethtool", "-K", "eth0", "gro", "off");
  return outside;
}

/** Captures what a namespace gets of the guest's TCP. */
function startCapture({ name }: NetNamespace, path: string): TestProcess {
  return new TestProcess("dumpcap", "ip", [
    ...["netns", "exec", name, "dumpcap", "-q", "-i", "eth0", "-B", "64", "-w", path],
    ...["-f", `tcp and src host ${GUEST}`],
  ]);
}

/** Another uplink every two seconds, until `isOver`; answers how often. */
async function exchange(fabric: TestFabric, uplinks: readonly UplinkSpec[], isOver: () => boolean): Promise<number> {
  for (let i = 1;; i++) {
    await new Promise((resolve) => setTimeout(resolve, EXCHANGE_MS));
    if (isOver()) return i - 1;
    await setUplink(fabric, uplinks[i % uplinks.length] as UplinkSpec);
  }
}

judgedTest(
  ["uml", "tshark", "python"],
  "TAPs, AF_XDP and a packet socket in turn under a file each way: both arrive whole, no frame outside has a fault",
  async () => {
    await using stack = new AsyncDisposableStack();
    await using fabric = await TestFabric.start(1);
    const bridge = stack.use(await Bridge.make());
    const [first, second] = [await makeTap(stack, bridge), await makeTap(stack, bridge)];
    const cable = stack.use(await Cable.make());
    const [wire, port] = cable.ends;
    await run("ip", ["link", "set", port, "master", bridge.name]);
    await run("ethtool", ["-K", port, "tx", "off"]);
    const outside = await makeOutside(stack, bridge);
    const uplinks: UplinkSpec[] = [
      { kind: "tap", name: first },
      { kind: "xdp", interface: wire },
      { kind: "tap", name: second },
      { kind: "packet", interface: wire },
    ];
    await setUplink(fabric, uplinks[0] as UplinkSpec);
    await using guest = await UmlGuest.boot(fabric.vf(0).socket);
    await guest.address(`${GUEST}/24`);
    await guest.untilReaches(OUTSIDE);
    assertEquals((await offloadsOf(guest)).get("tx-tcp-segmentation"), true);

    await using file = await TestFile.create(FILE_BYTES);
    const dir = await Deno.makeTempDir({ prefix: "ringfabric-capture-" });
    stack.defer(() => Deno.remove(dir, { recursive: true }));
    const path = `${dir}/frames.pcapng`;
    const size = () => Deno.stat(path).then(({ size }) => size, () => 0);
    await using capture = startCapture(outside, path);
    await until("the capture to begin", async () => await size() > 0);

    const args = [OUTSIDE, String(TRANSFER_PORT), file.path, String(BYTES_PER_SECOND)];
    await using server = new TestProcess("duplex.py", "ip", [
      ...["netns", "exec", outside.name, "python3", DUPLEX, "serve", ...args],
    ]);
    await server.expect(/listening/);
    let isOver = false;
    const client = guest.check(`python3 ${DUPLEX} connect ${args.join(" ")}`, 90_000);
    const [came, exchanged] = await Promise.all([
      client.finally(() => isOver = true),
      exchange(fabric, uplinks, () => isOver),
    ]);
    const sums = [came, (await server.expect(/sha256 .*\n/))[0]].map((said) => /sha256 (\w+)/.exec(said)?.[1]);
    assertEquals(sums, [file.sha256, file.sha256]);
    assert(exchanged >= EXCHANGES_MIN, `${exchanged} exchanges`);

    await until("the capture to be whole", async () => await size() > FILE_BYTES);
    await capture.end("SIGINT");
    const { byType, longestBytes, faults } = await judgeCapture(path, TRANSFER_PORT);
    assertEquals(faults, []);
    assertEquals(longestBytes, FRAME_BYTES_MAX);
    assert((byType["0x0800"] ?? 0) > FILE_BYTES / FRAME_BYTES_MAX, JSON.stringify(byType));
  },
);
