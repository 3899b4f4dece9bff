/**
 * Mirrors with real processes: whoever looks gets a copy of each frame that passes and of no other, whatever its rings
 * and whoever drives them; a mirror that comes, goes or stands still changes nothing for anybody else.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { socketPath } from "../../shared/api/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, type FrontEndGuest } from "../support/front_end.ts";
import { ask, MODES, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { UmlGuest } from "../support/uml.ts";
import { until } from "../support/wait.ts";

const BUFFERS = 48;
const MARKER_TYPE = 0x88b6;
const FOREIGN = "02:99:99:99:99:99";
const OUTSIDE = "02:88:88:88:88:88";

type Port = FrontEnd<FrontEndGuest>;

/** A guest at the socket of port `name`, with receive buffers. */
async function attach(fabric: TestFabric, name: string, format: "split" | "packed" = "split"): Promise<Port> {
  const port = await FrontEnd.connectAs(format, socketPath(fabric.runDir, name)).start();
  port.guest.fill(BUFFERS);
  port.kick(0);
  return port;
}

/** What has come; as many buffers are posted again. */
function take(port: Port): Uint8Array[] {
  const frames = port.guest.receive();
  port.guest.fill(frames.length);
  port.kick(0);
  return frames;
}

const typeOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset).getUint16(12);

/** Ports that send to each other, one that looks, and one that says when there is nothing more to see. */
interface Scene {
  ports: Port[];
  macs: string[];
  looks: Port;
  /** Tells the one that looks that this is all. */
  marker: { from: Port; frame: Uint8Array };
}

/**
 * Sends `frames` from one port and answers what others got: `there` those of port `to`, `copies` whoever looks. Each is
 * all that came, since frames behind these have come by the same ways.
 */
async function exchange(
  { ports, macs, looks, marker }: Scene,
  [from, to]: [number, number],
  frames: Uint8Array[],
): Promise<{ there: Uint8Array[]; copies: Uint8Array[] }> {
  const [sender, receiver] = [ports[from] as Port, ports[to] as Port];
  const last = frame({ src: macs[from] as string, dst: macs[to] as string, etherType: MARKER_TYPE });
  sender.guest.send([...frames, last]);
  sender.kick();
  const collect = async (what: string, port: Port, isLast: (bytes: Uint8Array) => boolean) => {
    const got: Uint8Array[] = [];
    await until(what, () => {
      got.push(...take(port));
      return got.some(isLast);
    });
    return got.filter((bytes) => typeOf(bytes) !== MARKER_TYPE);
  };
  const there = await collect("what was sent", receiver, (bytes) => typeOf(bytes) === MARKER_TYPE);
  marker.from.guest.send([marker.frame]);
  marker.from.kick();
  const end = String(marker.frame);
  const copies = await collect("the end of the copies", looks, (bytes) => String(bytes) === end);
  for (const port of ports) take(port);
  return { there, copies };
}

/** VFs 0 and 1 send to each other, VF 2 looks, VF 3 says when that is all. */
async function scene(fabric: TestFabric, format: "split" | "packed"): Promise<Scene & { all: Port[] }> {
  const all: Port[] = [];
  for (const vf of [0, 1, 2, 3]) all.push(await attach(fabric, `vf${vf}`, format));
  const [a, b, looks, from] = all as [Port, Port, Port, Port];
  const macs = [0, 1, 2, 3].map((vf) => fabric.vf(vf).mac);
  const end = frame({ src: macs[3] as string, dst: macs[2] as string, etherType: MARKER_TYPE });
  return { ports: [a, b], macs, looks, marker: { from, frame: end }, all };
}

async function closeAll(ports: readonly Port[]): Promise<void> {
  for (const port of ports) await port[Symbol.asyncDispose]();
}

for (const format of ["split", "packed"] as const) {
  Deno.test(`VF to VF, ${format} rings: copies are what passes, in, out and both, in every mode`, async (t) => {
    await using fabric = await TestFabric.start(4);
    const made = await scene(fabric, format);
    const [a, b] = made.macs as [string, string];
    const plain = frame({ src: a, dst: b, bytes: 300 });
    const tagged = frame({ src: a, dst: b, bytes: 90, tags: [{ vid: 5 }] });
    const all = frame({ src: a, dst: BROADCAST, bytes: 80 });
    const back = frame({ src: b, dst: a, bytes: 1514 });
    const spoofed = frame({ src: FOREIGN, dst: b });
    const denied = frame({ src: a, dst: b, tags: [{ vid: 6 }] });
    const mirror = (to: string | null) => fabric.patch(0, { mirror: to });
    try {
      await fabric.patch(0, { trunk: [5], spoofCheck: true });
      await fabric.patch(1, { trunk: [5] });
      for (
        const [source, target] of [["passthrough", "passthrough"], ["emulated", "passthrough"], [
          "passthrough",
          "emulated",
        ]]
      ) {
        await t.step(`from a VF that is ${source}, to one that is ${target}`, async () => {
          await setMode(fabric, 0, { mode: source });
          await setMode(fabric, 2, { mode: target });
          const sees = async () => ({
            out: (await exchange(made, [0, 1], [plain, tagged, spoofed, denied])).copies,
            in: (await exchange(made, [1, 0], [back])).copies,
          });
          assertEquals(await sees(), { out: [], in: [] });
          const { tx_spoofed: before = 0 } = await fabric.counters(0);
          await mirror("out:2");
          assertEquals(await sees(), { out: [plain, tagged], in: [] });
          await mirror("in:2");
          assertEquals(await sees(), { out: [], in: [back] });
          await mirror("both:2");
          assertEquals(await sees(), { out: [plain, tagged], in: [back] });
          assertEquals(
            (await fabric.counters(0)).tx_spoofed,
            before + 3,
            "what may not be sent is counted, not copied",
          );
          // Whoever looks is one of everybody: it has its own, and the copy.
          const { there, copies } = await exchange(made, [0, 1], [all]);
          assertEquals([there, copies], [[all], [all, all]]);
          await mirror(null);
          assertEquals(await sees(), { out: [], in: [] });
        });
      }
      await t.step("a mirror of a mirror, and two of each other: a copy is not copied", async () => {
        for (const vf of [0, 2]) await setMode(fabric, vf, { mode: "passthrough" });
        await mirror("both:2");
        await fabric.patch(2, { mirror: "both:0" });
        assertEquals(await exchange(made, [0, 1], [plain, tagged]), {
          there: [plain, tagged],
          copies: [plain, tagged],
        });
        // The frame that ends the copies goes to VF 2, so VF 0 gets a copy of it, once.
        assertEquals(await exchange(made, [1, 0], [back]), { there: [back], copies: [back] });
        const { rx_frames: before = 0 } = await fabric.counters(0);
        assertEquals((await exchange(made, [0, 1], [])).copies, []);
        assertEquals((await fabric.counters(0)).rx_frames, before + 1);
      });
    } finally {
      await closeAll(made.all);
    }
  });
}

Deno.test("to the uplink: what stays inside goes out as a copy, and nothing comes back", async () => {
  await using fabric = await TestFabric.start(3);
  const [a, b, from] = [await attach(fabric, "vf0"), await attach(fabric, "vf1"), await attach(fabric, "vf2")];
  const looks = await attach(fabric, "uplink");
  try {
    const macs = [0, 1, 2].map((vf) => fabric.vf(vf).mac) as [string, string, string];
    const end = frame({ src: macs[2], dst: OUTSIDE, etherType: MARKER_TYPE });
    const made: Scene = { ports: [a, b], macs, looks, marker: { from, frame: end } };
    await fabric.patch(0, { mirror: "both:uplink" });
    const [plain, back] = [frame({ src: macs[0], dst: macs[1], bytes: 1000 }), frame({ src: macs[1], dst: macs[0] })];
    assertEquals(await exchange(made, [0, 1], [plain, plain]), { there: [plain, plain], copies: [plain, plain] });
    assertEquals(await exchange(made, [1, 0], [back]), { there: [back], copies: [back] });
    // What comes from outside is not sent back there.
    const inbound = frame({ src: OUTSIDE, dst: macs[0] });
    looks.guest.send([inbound]);
    looks.kick();
    await until("the frame from outside", () => take(a).some((bytes) => String(bytes) === String(inbound)));
    assertEquals((await exchange(made, [0, 1], [])).copies, []);
  } finally {
    await closeAll([a, b, from, looks]);
  }
});

Deno.test("vports: copied at the software switch; the PF's pool: what they and VFs say to each other", async () => {
  await using fabric = await TestFabric.start(3);
  const vports = `${fabric.info.api}/api/v1/vports`;
  const made = [];
  for (let id = 0; id < 4; id++) made.push(await must(vports, "POST", {}));
  const ports: Port[] = [];
  for (const { id } of made) ports.push(await attach(fabric, `vport${id}`));
  const onVf = [await attach(fabric, "vf0"), await attach(fabric, "vf1"), await attach(fabric, "vf2")];
  try {
    const macs: string[] = made.map(({ mac }) => mac);
    const [a, b, looks, from] = ports as [Port, Port, Port, Port];
    const end = (src: string, dst: string) => frame({ src, dst, etherType: MARKER_TYPE });
    const atSwitch: Scene = {
      ...{ ports: [a, b], macs, looks },
      marker: { from, frame: end(macs[3] as string, macs[2] as string) },
    };
    const [plain, back] = [
      frame({ src: macs[0] as string, dst: macs[1] as string, bytes: 500 }),
      frame({ src: macs[1] as string, dst: macs[0] as string }),
    ];
    const sees = async () => [
      (await exchange(atSwitch, [0, 1], [plain])).copies,
      (await exchange(atSwitch, [1, 0], [back])).copies,
    ];
    assertEquals(await sees(), [[], []]);
    for (
      const [mirror, copies] of [
        ["out:vport2", [[plain], []]],
        ["in:vport2", [[], [back]]],
        ["both:vport2", [[plain], [back]]],
        [null, [[], []]],
      ] as const
    ) {
      await must(`${vports}/0`, "PATCH", { mirror });
      assertEquals(await sees(), copies as unknown, mirror ?? "none");
    }

    // Vport 0 and VF 0 talk by way of the PF's pool; VF 1 looks.
    const [x, y, z] = onVf as [Port, Port, Port];
    const [vf0, vf1, vf2] = [0, 1, 2].map((vf) => fabric.vf(vf).mac) as [string, string, string];
    const atNic: Scene = {
      ...{ ports: [a, x], macs: [macs[0] as string, vf0], looks: y },
      marker: { from: z, frame: end(vf2, vf1) },
    };
    const [up, down] = [
      frame({ src: macs[0] as string, dst: vf0 }),
      frame({ src: vf0, dst: macs[0] as string, bytes: 200 }),
    ];
    const seesAtNic = async () => [
      (await exchange(atNic, [0, 1], [up])).copies,
      (await exchange(atNic, [1, 0], [down])).copies,
    ];
    await must(`${fabric.info.api}/api/v1/nic`, "PATCH", { pfMirror: "both:1" });
    assertEquals(await seesAtNic(), [[up], [down]]);
    await must(`${fabric.info.api}/api/v1/nic`, "PATCH", { pfMirror: null });
    assertEquals(await seesAtNic(), [[], []]);

    await must(`${vports}/0`, "PATCH", { mirror: "both:vport2" });
    const refused = await ask(`${vports}/0/mode`, "PUT", { mode: "passthrough" });
    assertEquals([refused.status, refused.body.reason], [409, "mirrored"]);
    assertStringIncludes(refused.body.detail, "fabric vport set 0 mirror none");
  } finally {
    await closeAll([...ports, ...onVf]);
  }
});

Deno.test("a mirror comes, changes and goes under traffic, and its target dies: nobody loses a frame", async () => {
  await using fabric = await TestFabric.start(4, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const seen: Uint8Array[] = [];
  const looks = await attach(fabric, "vf2");
  const looking = setInterval(() => seen.push(...take(looks)), 1);
  try {
    const stream = await Stream.start(a, b, { count: 1_000_000, rate: 3000, size: 200 });
    for (let i = 0; i < 5; i++) {
      for (const mirror of ["out:2", "both:2", "out:3", null]) await fabric.patch(0, { mirror });
      await fabric.patch(1, { mirror: i % 2 === 0 ? "in:2" : null });
    }
    await until("copies", () => seen.length > 500);
    // The source changes hands: each frame is copied once, whoever takes it.
    await fabric.patch(1, { mirror: null });
    await fabric.patch(0, { mirror: "out:2" });
    const before = seen.length;
    for (const mode of Object.values(MODES)) await setMode(fabric, 0, mode);
    await until("more copies", () => seen.length > before + 500);
    const copies = seen.slice(before).filter((bytes) => bytes.length === 200).map(String);
    assert(copies.length > 300, `${copies.length} copies`);
    assertEquals(copies.length, new Set(copies).size);
    clearInterval(looking);
    await looks[Symbol.asyncDispose]();
    const unseen = (await fabric.counters(2)).rx_no_queue ?? 0;
    await until("copies that nobody takes", async () => ((await fabric.counters(2)).rx_no_queue ?? 0) > unseen);
    assert(await stream.end() > 500);
    assertEquals((await fabric.counters(1)).rx_no_buffer, 0);
  } finally {
    clearInterval(looking);
  }
});

Deno.test("a target that posts no buffers loses its copies; those who talk lose nothing", async () => {
  await using fabric = await TestFabric.start(3, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await using looks = await FrontEnd.connect(fabric.vf(2).socket).start();
  looks.guest.fill(4);
  looks.kick(0);
  await fabric.patch(0, { mirror: "both:2" });
  const stream = await Stream.start(a, b, { count: 1_000_000, rate: 4000, size: 1400 });
  // More than its packet buffer holds.
  const lost = async () => (await fabric.counters(2)).rx_no_buffer ?? 0;
  await until("copies to be lost", async () => await lost() > 1000, 30_000);
  const sent = await stream.end();
  assert(sent > 1000);
  const [from, to, copies] = [await fabric.counters(0), await fabric.counters(1), await fabric.counters(2)];
  assert((from.tx_frames ?? 0) >= sent && (to.rx_frames ?? 0) >= sent);
  assertEquals([from.rx_no_buffer, to.rx_no_buffer, copies.rx_frames], [0, 0, 4]);
});

judgedTest(
  ["uml", "tshark"],
  "dumpcap in a Linux guest that may not be promiscuous sees what two others say",
  async () => {
    await using fabric = await TestFabric.start(3, ["--guests", "2"]);
    const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
    await using looks = await UmlGuest.boot(fabric.vf(2).socket);
    await looks.check("ip link set eth0 up");
    await a.reaches(b.ip);
    await fabric.patch(0, { mirror: "both:2" });
    await looks.check("(dumpcap -q -i eth0 -w /run/seen.pcapng >/run/said 2>&1 &)");
    const file = `${fabric.runDir}/seen.pcapng`;
    /** Addresses that echoes of so many bytes came from, in the guest's capture. */
    const seen = async (bytes: number) => {
      const { code, output } = await looks.run("base64 -w 0 /run/seen.pcapng");
      if (code !== 0 || output.trim() === "") return [];
      await Deno.writeFile(file, Uint8Array.fromBase64(output.trim()));
      // It may end in the middle of a frame: the next look sees more.
      const args = ["-r", file, "-n", "-Y", `icmp && data.len == ${bytes}`, "-T", "fields", "-e", "ip.src"];
      const { stdout } = await new Deno.Command("tshark", { args }).output();
      return new TextDecoder().decode(stdout).split("\n").slice(0, -1);
    };
    const pingUntilSeen = (bytes: number) =>
      until(`an echo of ${bytes} bytes to be seen`, async () => {
        await a.ping(b.ip, 1, { size: bytes });
        return (await seen(bytes)).length > 0;
      }, 30_000);
    await pingUntilSeen(100);
    assertEquals((await a.ping(b.ip, 20, { size: 200 })).received, 20);
    // What comes behind them is there.
    await pingUntilSeen(300);
    assertEquals((await seen(200)).sort(), [...new Array(20).fill(a.ip), ...new Array(20).fill(b.ip)].sort());
  },
);
