/** The project's own guest against judges: QEMU/Linux and testpmd in both modes, net_vhost as back-end, tshark. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../shared/layout/virtio.ts";
import { TestFabric } from "../support/fabric.ts";
import { ask, checkedStream, MODES, must, setMode, TestGuest } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { QemuGuest } from "../support/qemu.ts";
import { Testpmd } from "../support/testpmd.ts";
import { until } from "../support/wait.ts";
import { authorized } from "../support/token.ts";

const ROOT = new URL("../../", import.meta.url);

judgedTest(
  ["qemu"],
  "guest and QEMU guest, in every mode of both: ping both ways and checked UDP streams",
  async (t) => {
    await using fabric = await TestFabric.start(2, ["--guests", "1"]);
    const guest = TestGuest.of(fabric, 0);
    await using qemu = await QemuGuest.boot(fabric.vf(1));
    await qemu.address("10.0.0.9/16");
    await qemu.check("udp-echo </dev/null >/dev/null 2>&1 &");
    for (const [name, mode] of Object.entries(MODES)) {
      for (const theirs of ["passthrough", "emulated"]) {
        await t.step(`${name}, QEMU ${theirs}`, async () => {
          await setMode(fabric, 0, mode);
          await setMode(fabric, 1, { mode: theirs });
          assertEquals((await guest.ping("10.0.0.9", 5, { timeoutMs: 3000 })).received, 5);
          await qemu.check(`ping -c 3 -i 0.1 ${guest.ip}`);
          await checkedStream(guest, guest, { rate: 500, size: 128, count: 300, echo: true }, "10.0.0.9");
          await checkedStream(guest, guest, { rate: 100, size: 1514, count: 100, echo: true }, "10.0.0.9");
        });
      }
    }
  },
);

judgedTest(["testpmd"], "guest and testpmd, in every mode of both: ARP, ping and checked UDP streams", async (t) => {
  await using fabric = await TestFabric.start(2, ["--guests", "1"]);
  const guest = TestGuest.of(fabric, 0);
  for (const forward of ["icmpecho", "5tswap"]) {
    await using testpmd = await Testpmd.start({ prefix: "rf-guest", ports: [fabric.vf(1)], forward, queueSize: 1024 });
    await testpmd.command("start");
    for (const [name, mode] of Object.entries(MODES)) {
      for (const theirs of ["passthrough", "emulated"]) {
        await t.step(`${forward}: ${name}, testpmd ${theirs}`, async () => {
          await setMode(fabric, 0, mode);
          await setMode(fabric, 1, { mode: theirs });
          // icmpecho answers ARP for any address, and echoes; 5tswap sends everything back with its addresses exchanged.
          if (forward === "icmpecho") assertEquals((await guest.ping("10.0.0.77", 5)).received, 5);
          else await checkedStream(guest, guest, { rate: 4000, size: 128, count: 3000, port: 5000 }, "10.0.0.77");
        });
      }
    }
    await testpmd.command("stop");
  }
});

/** Starts a guest that stands alone on some back-end. */
async function lone(socket: string, args: string[]): Promise<{ process: TestProcess; guest: TestGuest }> {
  const process = new TestProcess("guest", Deno.execPath(), [
    ...["run", "--quiet", "-A", "services/guest/main.ts", "--listen", "127.0.0.1:0", "--socket", socket],
    ...args,
  ], { cwd: ROOT });
  const [, json = ""] = await process.expect(/READY (\{.*\})/, 20_000);
  const { api } = JSON.parse(json);
  await until("the guest to have its back-end", async () => (await ask(`${api}/readyz`)).status === 200, 20_000);
  return { process, guest: new TestGuest({ api, ip: args[args.indexOf("--ip") + 1]?.split("/")[0] ?? "" }) };
}

/** What a driver may leave out. */
const FEATURE_SETS: Record<string, string[]> = {
  "everything": [],
  "no mergeable buffers": ["--without", String(VIRTIO_NET_F_MRG_RXBUF)],
  "no EVENT_IDX, no indirect": ["--without", `${VIRTIO_RING_F_EVENT_IDX},${VIRTIO_RING_F_INDIRECT_DESC}`],
  "two queue pairs": ["--queue-pairs", "2"],
  "small rings": ["--ring-size", "64"],
  "rings of a size that only packed ones have": ["--ring-size", "1000"],
  "jumbo frames": ["--mtu", "9000"],
  "split rings": ["--ring", "split"],
  "split rings, jumbo frames": ["--ring", "split", "--mtu", "9000"],
  "split rings, any order": ["--ring", "split", "--no-in-order"],
  "packed rings, any order": ["--no-in-order"],
  "packed rings, any order, jumbo frames": ["--no-in-order", "--mtu", "9000"],
  "packed rings, any order, no EVENT_IDX, no indirect": [
    "--without",
    `${VIRTIO_RING_F_EVENT_IDX},${VIRTIO_RING_F_INDIRECT_DESC}`,
    ...["--no-in-order", "--mtu", "9000"],
  ],
};

/** Features that the driver uses if the back-end has them, and it was not told otherwise. */
const FEATURES = [
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_IN_ORDER,
];

for (const [name, args] of Object.entries(FEATURE_SETS)) {
  judgedTest(["testpmd"], `the guest's driver on DPDK's net_vhost, ${name}: two guests through testpmd`, async () => {
    const dir = await Deno.makeTempDir({ prefix: "ringfabric-vhost-" });
    const sockets = [0, 1].map((i) => `${dir}/v${i}.sock`);
    const pairs = args.includes("--queue-pairs") ? 2 : 1;
    try {
      await using testpmd = await Testpmd.start({
        prefix: "rf-nvhost",
        ports: [],
        eal: sockets.flatMap((socket, i) => ["--vdev", `net_vhost${i},iface=${socket},queues=${pairs}`]),
        queuePairs: pairs,
        extra: ["--max-pkt-len=9200"],
      });
      await testpmd.command("start");
      const made = [];
      for (const [i, socket] of sockets.entries()) {
        made.push(await lone(socket, ["--ip", `10.1.0.${i + 1}/24`, "--mac", `02:00:00:00:01:0${i + 1}`, ...args]));
      }
      const [a, b] = made.map(({ guest }) => guest) as [TestGuest, TestGuest];
      await a.reaches(b.ip);
      // What DPDK says was agreed: all that the driver can, but what it was told to leave out.
      const agreed = [...testpmd.process.all.matchAll(/negotiated Virtio features: (0x[0-9a-f]+)/g)].map(([, hex]) =>
        BigInt(hex ?? "")
      );
      assertEquals(agreed.length, 2);
      const left = args[0] === "--without" ? (args[1] ?? "").split(",").map(Number) : [];
      if (args.includes("split")) left.push(VIRTIO_F_RING_PACKED);
      if (args.includes("--no-in-order")) left.push(VIRTIO_F_IN_ORDER);
      for (const bit of FEATURES) {
        for (const features of agreed) {
          assertEquals((features >> BigInt(bit)) & 1n, left.includes(bit) ? 0n : 1n, `feature bit ${bit}`);
        }
      }
      assertEquals((await a.ping(b.ip, 5)).received, 5);
      // testpmd drops what a ring of its peer does not take at once: what small rings take is little.
      await checkedStream(a, b, { rate: 2000, size: 128, count: 4000 });
      if (args.includes("--mtu")) await checkedStream(b, a, { rate: 1000, size: 9000, count: 1000 });
      else await checkedStream(b, a, { rate: 2000, size: 1514, count: 2000 });
      for (const { process } of made) await process.end();
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}

Deno.test("jumbo frames, two queue pairs and split headers, in every mode", async (t) => {
  const extra = "--mtu 9000 --queue-pairs 2 --header-bytes 128 --ring-size 512";
  await using fabric = await TestFabric.start(2, ["--guests", "2", "--guest-args", extra]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  for (const [name, mode] of Object.entries(MODES)) {
    await t.step(name, async () => {
      for (const vf of [0, 1]) await setMode(fabric, vf, mode);
      assertEquals((await a.ping(b.ip, 3, { size: 8900 })).received, 3);
      for (const size of [128, 1514, 2033, 9014]) await checkedStream(a, b, { rate: 2000, size, count: 400 });
      // In emulated mode too the rings that are shown are the guest's.
      const { queues } = await must(`${fabric.info.api}/api/v1/vfs/0`);
      assertEquals(queues.length, 4);
      if (mode.mode === "passthrough") assert(queues.every(({ size }: { size: number }) => size === 512));
    });
  }
});

/** Frames whose payload ends in every part of a word, and of the words that are summed at a time. */
const ODD_SIZES = [70, 71, 73, 79, 85, 93, 101, 113, 1513];

judgedTest(["tshark"], "a capture opens in tshark, with both directions, the right times and checksums", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const path = await Deno.makeTempFile({ prefix: "ringfabric-", suffix: ".pcapng" });
  try {
    const capturing = authorized(`${a.api}/api/v1/capture`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"seconds":1}',
    });
    await until("the capture to run", async () => (await ask(`${a.api}/api/v1/capture`, "POST", {})).status === 409);
    const before = Date.now() / 1000;
    await a.ping(b.ip, 5);
    await checkedStream(a, b, { rate: 1000, size: 1514, count: 100 });
    for (const size of ODD_SIZES) await checkedStream(a, b, { rate: 1000, size, count: 2 });
    await Deno.writeFile(path, new Uint8Array(await (await capturing).arrayBuffer()));
    const { stdout, stderr, code } = await new Deno.Command("tshark", {
      args: [
        "-r",
        path,
        "-T",
        "fields",
        ..."ip udp".split(" ").flatMap((protocol) => ["-o", `${protocol}.check_checksum:TRUE`]),
        ...("frame.time_epoch frame.len icmp.type udp.dstport frame.packet_flags_direction " +
          "ip.checksum.status icmp.checksum.status udp.checksum.status").split(" ").flatMap((field) => ["-e", field]),
      ],
    }).output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    const rows = new TextDecoder().decode(stdout).trim().split("\n").map((line) => line.split("\t"));
    const count = (column: number, value: string) => rows.filter((row) => row[column] === value).length;
    assertEquals([count(2, "8"), count(2, "0")], [5, 5]);
    assertEquals(rows.filter((row) => row[3] === "9" && row[1] === "1514").length, 100);
    const GOOD = "1";
    const sums = rows.filter(([, , icmp, udp]) => icmp || udp);
    assert(sums.length >= 110 + 2 * ODD_SIZES.length);
    for (const [, length, icmp, , , ip, icmpSum, udpSum] of sums) {
      assertEquals([ip, icmp ? icmpSum : udpSum], [GOOD, GOOD], `checksums of a frame of ${length} bytes`);
    }
    for (const row of rows) {
      assert(Math.abs(Number(row[0]) - before) < 5, `captured at ${row[0]}, sent after ${before}`);
    }
    assert(rows.some((row) => /1/.test(row[4] ?? "")) && rows.some((row) => /2/.test(row[4] ?? "")), "both directions");
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("the guest's API refuses what cannot be, and says what would be", async () => {
  await using fabric = await TestFabric.start(1, ["--guests", "1"]);
  const { api } = TestGuest.of(fabric, 0);
  const cases: [string, string, unknown, number, string][] = [
    ["POST", "/api/v1/ping", { to: "10.0.0.300" }, 422, "to"],
    ["POST", "/api/v1/ping", { to: "10.0.0.2", count: 0 }, 422, "count"],
    ["POST", "/api/v1/ping", { to: "10.0.0.2", size: 5000 }, 422, "size"],
    ["POST", "/api/v1/ping", { to: "10.0.0.2", colour: "red" }, 422, "colour"],
    ["POST", "/api/v1/traffic", { to: "10.0.0.2", size: 20 }, 422, "size"],
    ["POST", "/api/v1/traffic", { to: "10.0.0.2", rate: -1 }, 422, "rate"],
    ["DELETE", "/api/v1/traffic/15", undefined, 404, "id"],
    ["POST", "/api/v1/capture", { seconds: 0 }, 422, "seconds"],
    ["PATCH", "/api/v1/link", { mac: "01:00:00:00:00:01" }, 422, "mac"],
  ];
  for (const [method, path, body, status, field] of cases) {
    const answer = await ask(api + path, method, body);
    assertEquals(
      [answer.status, answer.body.field],
      [status, field],
      `${method} ${path}: ${JSON.stringify(answer.body)}`,
    );
  }
  assertStringIncludes((await ask(`${api}/api/v1/ping`, "POST", { to: "10.0.0.300" })).body.detail, "such as 10.0.0.2");
  assertEquals((await must(`${api}/api/v1/ping`, "POST", { to: "10.0.0.99", count: 2, timeoutMs: 200 })).lost, 2);
});

Deno.test("a guest that still waits for its hypervisor stops when it is told to", async () => {
  await using guest = new TestProcess("guest", Deno.execPath(), [
    ...["run", "--quiet", "-A", "services/guest/main.ts", "--listen", "127.0.0.1:0"],
    ...["--socket", "/nonexistent.sock", "--ip", "10.0.0.1/16", "--hypervisor", "http://127.0.0.1:1"],
  ], { cwd: ROOT });
  await until("it to wait", () => guest.errors.includes("waiting for the hypervisor"));
  assertEquals((await guest.end("SIGTERM")).code, 0);
});
