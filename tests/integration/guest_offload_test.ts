/** Offloads between built-in guests that have them and guests that do not, in every mode, and while modes change. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { ask, checkedStream, MODES, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { authorized } from "../support/token.ts";
import { until } from "../support/wait.ts";

const OFF = "--no-tx-checksum --no-rx-checksum";
const CHANGES = 60;

/** What a guest says that its path does, by the mode that it is in. */
const offloadsOf = (mode: string) => [
  "tx-checksum",
  "tx-segmentation",
  "rx-checksum",
  // An advanced VF delivers finished frames.
  ...(mode === "advanced plugin" ? [] : ["rx-large"]),
];

async function offloads(guest: TestGuest): Promise<string[]> {
  return (await must(`${guest.api}/api/v1/link`)).offloads;
}

async function counters(guest: TestGuest): Promise<Record<string, number>> {
  return (await must(`${guest.api}/api/v1/stats`)).counters;
}

/** Whether nothing has come that should not have, and nothing was asked for that may not be. */
async function checkBooks(fabric: TestFabric, guests: readonly TestGuest[]): Promise<void> {
  for (const [vf, guest] of guests.entries()) {
    const { rx_checksum, rx_bad, plugin_faults } = await counters(guest);
    assertEquals({ rx_checksum, rx_bad, plugin_faults }, { rx_checksum: 0, rx_bad: 0, plugin_faults: 0 });
    assertEquals((await fabric.counters(vf)).tx_bad_offload, 0);
  }
}

/** As fast as it goes, and never more on the way than a receiver's ring has room for. */
const windowed = (size: number) => ({ rate: 0, size, echo: true, window: size > 2000 ? 48 : 256 });

/** What each guest is started with, and the longest frame that both take. */
const PAIRS: Record<string, { args: [string, string]; size: number }> = {
  "on and off": { args: ["", OFF], size: 1514 },
  "off and on": { args: [OFF, ""], size: 1514 },
  "on, MTU 9000": { args: ["--mtu 9000", "--mtu 9000"], size: 9014 },
  "on and off, MTU 9000, split rings": {
    args: ["--mtu 9000 --ring split", `--mtu 9000 --ring split ${OFF}`],
    size: 9014,
  },
  "on, headers apart, and no large frames": { args: ["--header-bytes 128", "--no-rx-large"], size: 1514 },
};

for (const [name, { args, size }] of Object.entries(PAIRS)) {
  Deno.test(`offloads of two guests, ${name}: checked streams and echoes in every pair of modes`, async (t) => {
    const guestArgs = args.flatMap((text) => ["--guest-args", text]);
    await using fabric = await TestFabric.start(2, ["--guests", "2", ...guestArgs]);
    const guests = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)] as const;
    const [a, b] = guests;
    for (const [left, modeA] of Object.entries(MODES)) {
      for (const [right, modeB] of Object.entries(MODES)) {
        await t.step(`${left} and ${right}`, async () => {
          await setMode(fabric, 0, modeA);
          await setMode(fabric, 1, modeB);
          await a.reaches(b.ip);
          if (args[0] === "") assertEquals(await offloads(a), offloadsOf(left));
          if (args[0] === OFF) assertEquals(await offloads(a), []);
          const before = await Promise.all(guests.map(counters));
          for (const traffic of [{ count: 2000, segment: true }, { count: 500 }]) {
            await checkedStream(a, a, { ...traffic, ...windowed(size) }, b.ip);
            await checkedStream(b, b, { ...traffic, ...windowed(size) }, a.ip);
          }
          await checkBooks(fabric, guests);
          const after = await Promise.all(guests.map(counters));
          for (const i of [0, 1]) {
            const isOn = !args[i]?.includes(OFF);
            assertEquals((after[i]?.tx_large ?? 0) > (before[i]?.tx_large ?? 0), isOn, `guest ${i} sends large frames`);
          }
        });
      }
    }
  });
}

Deno.test(`${CHANGES} changes of mode under streams of frames to be cut: nothing lost, doubled, reordered, or with a bad sum`, async () => {
  const args = ["--mtu 9000", `--mtu 9000 ${OFF}`].flatMap((text) => ["--guest-args", text]);
  await using fabric = await TestFabric.start(2, ["--guests", "2", ...args]);
  const guests = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)] as const;
  const [a, b] = guests;
  await a.reaches(b.ip);
  const streams = [
    await Stream.start(a, b, { ...windowed(1514), rate: 20_000, segment: true }, a),
    await Stream.start(a, b, { ...windowed(9014), rate: 2000, segment: true }, a),
    await Stream.start(b, a, { ...windowed(1514), rate: 10_000, segment: true }, b),
  ];
  for (let i = 0; i < CHANGES; i++) {
    const plugin = (i >> 2) % 2 === 0 ? "advanced" : "virtio";
    await setMode(fabric, (i >> 1) % 2, i % 2 === 0 ? { mode: "passthrough", plugin } : { mode: "emulated" });
  }
  for (const stream of streams) assert(await stream.end() > 1000);
  await checkBooks(fabric, guests);
  assert(((await counters(a)).tx_large ?? 0) > 100);
});

Deno.test("rings too small for 64 KiB have no large frames, and lose nothing", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2", "--guest-args", "--ring-size 32"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  for (const mode of Object.values(MODES)) {
    for (const vf of [0, 1]) await setMode(fabric, vf, mode);
    await a.reaches(b.ip);
    assertEquals(await offloads(a), ["tx-checksum", "rx-checksum"]);
    await checkedStream(a, a, { rate: 0, size: 1514, count: 500, segment: true, echo: true, window: 8 }, b.ip);
  }
});

judgedTest(["tshark"], "a capture of frames to be cut opens in tshark, each as long as it was", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const path = await Deno.makeTempFile({ prefix: "ringfabric-", suffix: ".pcapng" });
  try {
    const capturing = authorized(`${b.api}/api/v1/capture`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: '{"seconds":1}',
    });
    await until("the capture to run", async () => (await ask(`${b.api}/api/v1/capture`, "POST", {})).status === 409);
    await checkedStream(a, b, { rate: 20_000, size: 1514, count: 500, segment: true });
    await Deno.writeFile(path, new Uint8Array(await (await capturing).arrayBuffer()));
    const fields = ["frame.len", "ip.src", "ip.len", "udp.dstport", "udp.length"].flatMap((field) => ["-e", field]);
    const { stdout, stderr, code } = await new Deno.Command("tshark", { args: ["-r", path, "-T", "fields", ...fields] })
      .output();
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    const rows = new TextDecoder().decode(stdout).trim().split("\n").map((line) => line.split("\t"))
      .filter(([, , , port]) => port === "9");
    let datagrams = 0;
    for (const [length, from, ip, , udp] of rows) {
      assertEquals([from, Number(ip), Number(udp)], [a.ip, Number(length) - 14, Number(length) - 34]);
      datagrams += (Number(length) - 42) / (1514 - 42);
    }
    assertEquals(datagrams, 500, "every datagram is in some frame");
    assert(rows.some(([length]) => Number(length) > 10_000), "some came together");
  } finally {
    await Deno.remove(path);
  }
});
