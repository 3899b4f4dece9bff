/**
 * Who reads captures, and how: `curl` into tshark while frames come, filters as tshark judges them, a reader that does
 * not keep up, guests and NICs that go away, and readers who mean no good.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { changeTokens, hashToken, socketPath } from "../../shared/api/mod.ts";
import { blocksOf, framesOf, optionsOf } from "../support/capture_rig.ts";
import { CaptureStream, wholeBlocks } from "../support/capture_stream.ts";
import { TestFabric } from "../support/fabric.ts";
import { filterFrames } from "../support/filter_frames.ts";
import { FrontEnd } from "../support/front_end.ts";
import { ask, must, Stream, TestGuest } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { frame } from "../support/mock_guest.ts";
import { childrenOf, TestProcess } from "../support/process.ts";
import { authorized, TEST_TOKEN } from "../support/token.ts";
import { until, within } from "../support/wait.ts";

/** A block of interface statistics, and what of it says how many frames were lost. */
const STATISTICS = 5;
const ISB_IFDROP = 5;

/** Whether the last frame that is waited for is in a file. */
const has = (mark: Uint8Array) => (file: Uint8Array) =>
  framesOf(file).some(({ bytes }) => String(bytes) === String(mark));

/** Frames that were lost, by the interface's statistics. */
const lostIn = (file: Uint8Array) => {
  const last = blocksOf(file).findLast(({ type }) => type === STATISTICS);
  const [, value] = (last ? optionsOf(last.body, 12) : []).find(([code]) => code === ISB_IFDROP) ?? [];
  return Number(value?.getBigUint64(0, true) ?? 0n);
};

/** What tshark says of a file, a line for each frame; `filter`: a display filter. */
async function judged(file: string, fields: string[], filter = ""): Promise<string[]> {
  const args = ["-r", file, "-n", "-Y", filter, "-T", "fields", ...fields.flatMap((name) => ["-e", name])];
  return (await run("tshark", args)).split("\n").slice(0, -1);
}

/** Filters of ours, and what they are in tshark's display language. */
const FILTERS: [string, string][] = [
  ["tcp", "ip.proto == 6 || ipv6.hopopts.nxt == 6"],
  ["tcp port 22", "tcp.port == 22"],
  ["udp port 53", "udp.port == 53"],
  ["udp", "ip.proto == 17"],
  ["icmp or icmp6", "icmp || icmpv6"],
  ["arp", "arp"],
  ["ip6", "ipv6"],
  ["host 10.0.0.1", "ip.addr == 10.0.0.1 || arp.src.proto_ipv4 == 10.0.0.1"],
  ["net 10.1.0.0/16", "ip.addr == 10.1.0.0/16"],
  ["src net 192.168.0.0/16", "ip.src == 192.168.0.0/16"],
  ["vlan 7", "vlan.id == 7"],
  ["broadcast", "eth.dst == ff:ff:ff:ff:ff:ff"],
  ["multicast and not broadcast", "eth.dst.ig == 1 && eth.dst != ff:ff:ff:ff:ff:ff"],
  ["dropped", 'frame.comment contains "dropped"'],
  ["dropped tx_spoofed", 'frame.comment contains "tx_spoofed"'],
  [
    "vf 1 and inbound and not (tcp or udp)",
    'frame.interface_name == "vf1" && !(ip.proto == 6 || ip.proto == 17 || ipv6.hopopts.nxt == 6)',
  ],
];

judgedTest(["tshark"], "filters: a capture has what tshark finds in the one of everything", async () => {
  await using fabric = await TestFabric.start(2);
  await using sender = await FrontEnd.connect(fabric.vf(0).socket).start();
  await using receiver = await FrontEnd.connect(fabric.vf(1).socket).start();
  receiver.guest.fill(48);
  receiver.kick(0);
  for (const vf of [0, 1]) await fabric.patch(vf, { trunk: [7] });
  const [src, dst] = [fabric.vf(0).mac, fabric.vf(1).mac];
  const frames = Object.values(filterFrames(src, dst));
  // Each capture has this one, and it is the last.
  const mark = frame({ src, dst, etherType: 0x88b6 });
  const isMark = `ether dst ${dst} and ether src ${src} and not (ip or ip6 or arp or vlan)`;
  const read = async (filters: string[]) => {
    await using stack = new AsyncDisposableStack();
    const readers = await Promise.all(filters.map(async (filter) => {
      const search = new URLSearchParams(filter === "" ? {} : { filter: `(${filter}) or (${isMark})` });
      return stack.use(await CaptureStream.open(fabric, `capture?${search}`));
    }));
    sender.guest.send([...frames, mark]);
    sender.kick();
    const files = await Promise.all(readers.map((reader) =>
      reader.until("the last frame", (file) => {
        return framesOf(file).filter(({ bytes }) => String(bytes) === String(mark)).length === 2;
      })
    ));
    receiver.guest.receive();
    receiver.guest.fill(48 - receiver.guest.posted());
    receiver.kick(0);
    return files;
  };
  const fields = [
    "frame.interface_name",
    "frame.packet_flags_direction",
    "eth.src",
    "eth.dst",
    "eth.type",
    "frame.len",
    "frame.comment",
  ];
  const PLACES = 7;
  for (let at = 0; at < FILTERS.length; at += PLACES) {
    const some = FILTERS.slice(at, at + PLACES);
    const files = await read(["", ...some.map(([filter]) => filter)]);
    const whole = `${fabric.runDir}/whole.pcapng`;
    await Deno.writeFile(whole, files[0] as Uint8Array<ArrayBuffer>);
    for (const [i, [filter, display]] of some.entries()) {
      const file = `${fabric.runDir}/some.pcapng`;
      await Deno.writeFile(file, files[i + 1] as Uint8Array<ArrayBuffer>);
      const plain = `eth.src == ${src} && eth.dst == ${dst} && !(ip || ipv6 || arp || vlan)`;
      const expected = await judged(whole, fields, `(${display}) || (${plain})`);
      assert(expected.length > 2, `${display} finds something`);
      assertEquals(await judged(file, fields), expected, filter);
    }
  }
});

/** `curl … | tshark`, as somebody types it; ends with what it consists of. */
function live(fabric: TestFabric, path: string, fields: string): TestProcess & AsyncDisposable {
  const url = `${fabric.info.api}/api/v1/${path}`;
  const command = `curl -sN -H "authorization: Bearer ${TEST_TOKEN}" "${url}" | tshark -i - -n -l -T fields ${fields}`;
  const process = new TestProcess(`curl ${path} | tshark`, "bash", ["-c", command]);
  const end = process.end.bind(process);
  process.end = (signal) => {
    for (const child of childrenOf(process.pid)) Deno.kill(child, "SIGKILL");
    return end(signal);
  };
  return process;
}

judgedTest(["tshark"], "curl into tshark: frames of the uplink, and of a filter, while they come", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  await using outside = await FrontEnd.connect(socketPath(fabric.runDir, "uplink")).start();
  outside.guest.fill(48);
  outside.kick(0);
  await using everybody = live(
    fabric,
    "capture?filter=icmp&snap=64",
    "-e frame.interface_name -e icmp.type -e frame.cap_len",
  );
  await using uplink = live(
    fabric,
    "uplink/capture",
    "-e frame.interface_name -e frame.packet_flags_direction -e arp.dst.proto_ipv4",
  );
  const lines = (process: TestProcess) => process.output.split("\n").slice(0, -1);
  await until("frames of both, while the streams go on", async () => {
    await a.ping(b.ip, 1);
    await a.ping("10.0.99.9", 1, { timeoutMs: 50 });
    return lines(everybody).length >= 4 && lines(uplink).length >= 1;
  }, 30_000);
  for (const line of ["vf0\t8\t64", "vf1\t8\t64", "vf1\t0\t64", "vf0\t0\t64"]) {
    await until(line, () => lines(everybody).includes(line));
  }
  assertEquals(new Set(lines(everybody).map((line) => line.split("\t")[1])), new Set(["8", "0"]));
  assert(lines(uplink).includes("uplink\t0x00000002\t10.0.99.9"), uplink.output);
  assertEquals([everybody.exited, uplink.exited], [undefined, undefined], "they go on");
});

judgedTest(
  ["tshark"],
  "a reader that does not read: the data path goes on, and what was lost is told to the frame",
  async () => {
    await using fabric = await TestFabric.start(2, ["--guests", "2"]);
    const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
    await a.reaches(b.ip);
    const free = async () => (await must(`${fabric.info.api}/api/v1/nic`)).engine;
    const before = await free();
    const sum = async () => {
      const { tx_frames = 0, rx_frames = 0 } = await fabric.counters(0);
      return tx_frames + rx_frames;
    };
    const from = await sum();
    {
      await using reader = await CaptureStream.open(fabric, "vfs/0/capture");
      assertEquals((await free()).captures, 1);
      const stream = await Stream.start(a, b, { count: 1_000_000, rate: 8000, size: 1400 });
      // As much as the ring, and all sockets on the way, cannot hold.
      await until("40 MB", async () => ((await fabric.counters(0)).tx_bytes ?? 0) > 40e6, 60_000);
      await stream.end();
      // Once it has read what there is, it is told in the file what there was no room for; the next frames say it too.
      await reader.until("statistics", (file) => lostIn(file) > 1000);
      assertEquals((await a.ping(b.ip, 3)).received, 3);
      const all = await sum() - from;
      const file = await reader.until("all frames", (file) => framesOf(file).length + lostIn(file) === all);
      const path = `${fabric.runDir}/slow.pcapng`;
      await Deno.writeFile(path, file as Uint8Array<ArrayBuffer>);
      const counts = await judged(path, ["frame.drop_count"]);
      assertEquals(counts.length + counts.reduce((lost, count) => lost + Number(count), 0), all);
      assertStringIncludes(await run("capinfos", ["-M", path]), `Number of packets:   ${counts.length}`);
    }
    await until("its place and its memory to be free", async () => {
      const { captures, arenaFreeBytes } = await free();
      return captures === 0 && arenaFreeBytes === before.arenaFreeBytes;
    });
  },
);

/** `fabric capture` of `what` into `file`, once it is open. */
async function capture(fabric: TestFabric, what: string, file: string): Promise<TestProcess> {
  const process = new TestProcess("fabric capture", Deno.execPath(), [
    ...["run", "-A", "--quiet", "services/cli/main.ts", "--run-dir", fabric.runDir, "capture", what, "-w", file],
  ]);
  await until(`${file} to be begun`, async () => {
    assertEquals(process.exited, undefined, process.all);
    return await Deno.stat(file).then(({ size }) => size > 0, () => false);
  }, 20_000);
  return process;
}

judgedTest(
  ["tshark"],
  "a guest that leaves ends no capture; the NIC's end ends it, and the file is whole",
  async () => {
    await using fabric = await TestFabric.start(2);
    const file = `${fabric.runDir}/goes-on.pcapng`;
    await using process = await capture(fabric, "0", file);
    const [src, dst] = [fabric.vf(0).mac, fabric.vf(1).mac];
    for (const bytes of [100, 200]) {
      await using sender = await FrontEnd.connect(fabric.vf(0).socket).start();
      const sent = frame({ src, dst, bytes });
      sender.guest.send([sent]);
      sender.kick();
      await until(
        `the frame of ${bytes} bytes in the file`,
        async () => has(sent)(await Deno.readFile(file).then(wholeBlocks)),
      );
    }
    const nic = fabric.pid("nic");
    Deno.kill(nic, "SIGKILL");
    const { code } = await within("the capture to end", process.child.status, 20_000);
    assertEquals(code, 1, process.all);
    assertStringIncludes(process.errors, "the capture has ended");
    assertEquals(await judged(file, ["frame.len"]), ["100", "200"]);
    assertStringIncludes(await run("capinfos", ["-c", file]), "Number of packets:   2");
    await until("another NIC", () => ![nic, undefined].includes(fabric.pids().nic));
    await until("a new capture", async () => {
      const { status, body } = await authorized(`${fabric.info.api}/api/v1/vfs/0/capture`);
      await body?.cancel();
      return status === 200;
    });
  },
);

judgedTest(["tshark"], "a capture ends with the process that it is of, also when another one takes over", async () => {
  await using fabric = await TestFabric.start(2, ["--standby"]);
  await using sender = await FrontEnd.connect(fabric.vf(0).socket).start();
  const sent = frame({ src: fabric.vf(0).mac, dst: fabric.vf(1).mac });
  const ready = async () => (await must(`${fabric.info.api}/api/v1/nic`)).standby.state === "ready";
  await until("the standby to be ready", ready, 20_000);
  const file = `${fabric.runDir}/upgraded.pcapng`;
  await using process = await capture(fabric, "0", file);
  sender.guest.send([sent]);
  sender.kick();
  await until("the frame in the file", async () => has(sent)(await Deno.readFile(file).then(wholeBlocks)));
  await must(`${fabric.info.api}/api/v1/services/nic/upgrade`, "POST", {});
  const { code } = await within("the capture to end", process.child.status, 20_000);
  assertEquals(code, 1, process.all);
  assertStringIncludes(process.errors, `what came until then is in ${file}`);
  assertEquals(await judged(file, ["frame.len"]), ["64"]);
  // The new process has captures of its own.
  await using reader = await CaptureStream.open(fabric, "vfs/0/capture");
  sender.guest.send([sent]);
  sender.kick();
  await reader.until("the frame", has(sent));
});

Deno.test("hostile: filters that are bombs, a hundred readers, a page of another site, a tenant that takes them all", async (t) => {
  await using fabric = await TestFabric.start(5, ["--guests", "2"]);
  const url = `${fabric.info.api}/api/v1`;
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const stream = await Stream.start(a, b, { count: 1_000_000, rate: 1000, size: 200 });
  const captures = async () => (await must(`${url}/nic`)).engine.captures;

  await t.step("filters: length, depth, comparisons, and characters that are none", async () => {
    const bombs: [string, string][] = [
      ["a".repeat(1025), "a filter has up to 1024 characters"],
      ["(".repeat(1000), "more than 32 levels"],
      [`${"not ".repeat(250)}tcp`, "more than 32 levels"],
      [Array.from({ length: 60 }, () => "host fe80::1").join(" or "), "it takes 540 comparisons"],
      ["tcp\0port 22", "is no word of the filter language"],
    ];
    for (const [filter, says] of bombs) {
      const { status, body } = await ask(`${url}/capture?${new URLSearchParams({ filter })}`);
      assertEquals([status, body.field], [422, "filter"], filter.slice(0, 20));
      assertStringIncludes(body.detail, says);
    }
    assertEquals(await captures(), 0);
  });

  await t.step("a hundred readers: eight captures, the others are told why not; all go and leave nothing", async () => {
    const answers = await Promise.all(Array.from({ length: 100 }, () => authorized(`${url}/capture`)));
    const open = answers.filter(({ status }) => status === 200);
    const refused = answers.filter(({ status }) => status === 503);
    assertEquals([open.length, refused.length], [8, 92]);
    const said = await Promise.all(refused.map((answer) => answer.json()));
    assertEquals(new Set(said.map(({ reason, detail }) => `${reason}: ${detail}`)).size, 1);
    assertMatch(
      `${said[0].reason}: ${said[0].detail}`,
      /^capture-limit: .*8 captures are open already: end one first$/,
    );
    for (const { body } of open) await body?.cancel();
    await until("all places to be free", async () => await captures() === 0);
  });

  await t.step("a page of another site sees no frame, whatever token it has", async () => {
    for (const headers of [{ origin: "https://evil.example" }, { "sec-fetch-site": "cross-site" }]) {
      const { status, body } = await authorized(`${url}/capture`, { headers: headers as Record<string, string> });
      assertEquals(status, 403);
      await body?.cancel();
    }
    assertEquals(await captures(), 0);
  });

  await t.step("tenants with tokens: two each, six together, and an operator finds one", async () => {
    changeTokens(fabric.runDir, (tokens) => [
      ...tokens,
      ...[0, 1, 2, 3].map((vf) => ({ name: `t${vf}`, role: "vf" as const, vf, sha256: hashToken(`t${vf}`) })),
    ]);
    const open: Response[] = [];
    const outcomes: number[] = [];
    for (const vf of [0, 1, 2, 3]) {
      for (let i = 0; i < 3; i++) {
        const answer = await fetch(`${url}/vfs/${vf}/capture`, { headers: { authorization: `Bearer t${vf}` } });
        outcomes.push(answer.status);
        if (answer.ok) open.push(answer);
        else await answer.body?.cancel();
      }
    }
    assertEquals(outcomes, [200, 200, 429, 200, 200, 429, 200, 200, 429, 503, 503, 503]);
    const operator = await authorized(`${url}/vfs/3/capture`);
    assertEquals([operator.status, await captures()], [200, 7]);
    for (const { body } of [...open, operator]) await body?.cancel();
    await until("tenants' places to be free", async () => {
      const answer = await fetch(`${url}/vfs/3/capture`, { headers: { authorization: "Bearer t3" } });
      await answer.body?.cancel();
      return answer.ok;
    });
  });
  assert(await stream.end() > 100);
});
