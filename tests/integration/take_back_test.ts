/** A VF can always be taken back: whatever its guest, its plugin or its token do, nothing of the old owner is left. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { BUFFERS } from "../../shared/layout/guest.ts";
import { PLUGIN_BUFFERS } from "../../shared/layout/plugin.ts";
import { generateKeys } from "../../shared/plugin/mod.ts";
import { Bystanders } from "../support/bystanders.ts";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { DirectGuest } from "../support/direct_guest.ts";
import { TestFabric } from "../support/fabric.ts";
import { ask, checkedStream, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { type Conduct, HostileGuest, shellAddress } from "../support/hostile_guest.ts";
import { frame } from "../support/mock_guest.ts";
import { compilePlugin, ENDLESS, PLUGIN_TRACE, RINGS, sign } from "../support/plugins.ts";
import { until } from "../support/wait.ts";

const TAKE_BACKS = 1000;

const leaseUrl = (fabric: TestFabric, vf: number) => `${fabric.url("nic")}/api/v1/vfs/${vf}/lease`;
const freeBytes = async (fabric: TestFabric) => (await must(`${fabric.info.api}/api/v1/nic`)).engine.arenaFreeBytes;
const put = (fabric: TestFabric, path: string, body: unknown) => ask(`${fabric.info.api}/api/v1/${path}`, "PUT", body);

function there<T>(value: T | undefined): T {
  if (value === undefined) throw new Error("it is not there");
  return value;
}

/** Everything that a driver can ask fails: its connection has ended with its lease. */
async function checkStale(driver: DirectGuest): Promise<void> {
  const asks: (() => Promise<unknown>)[] = [
    () => driver.map(),
    () => driver.start(0),
    () => driver.start(1),
    () => driver.device.requestFd({ op: "region", name: "registers" }),
    () => driver.device.request({ op: "resume" }),
    () => driver.device.request({ op: "detach" }),
  ];
  for (const one of asks) {
    assertEquals((await assertRejects(one, DeviceRefusal) as DeviceRefusal).code, "nic-gone");
  }
}

Deno.test("a guest whose VF was taken back has nothing more of it: no memory, no queue, no frame", async () => {
  await using fabric = await TestFabric.start(4);
  await using bystanders = await Bystanders.attach(fabric);
  const [macVictim, macPeer] = [fabric.vf(2).mac, fabric.vf(3).mac];
  await using peer = await DirectGuest.attach(fabric, 3);
  const free = await freeBytes(fabric);
  for (let round = 0; round < 5; round++) {
    await using old = await DirectGuest.attach(fabric, 2);
    // Room for all that it has sent before: nothing of it waits and comes later.
    peer.guest.fill(60 - peer.guest.posted());
    // What it had offered and the NIC had not fetched is counted, and never sent.
    await fabric.patch(2, { maxTxRate: 1 });
    old.guest.send(Array.from({ length: 60 }, () => frame({ dst: macPeer, src: macVictim, bytes: 1500 })));
    old.signal();
    const taken = await must(leaseUrl(fabric, 2), "DELETE");
    assert(taken.takenBack && taken.unfetched > 0, JSON.stringify(taken));
    await until("the old guest to be told", () => old.events.some((event) => event.event === "revoked"));
    await fabric.patch(2, { maxTxRate: 0 });
    peer.guest.receive();
    await using victim = await DirectGuest.attach(fabric, 2);
    await checkStale(old);
    victim.guest.fill(32);
    old.guest.fill(32);
    const secret = frame({ dst: macVictim, src: macPeer, bytes: 200 });
    peer.guest.send([secret]);
    peer.signal();
    const got: Uint8Array[] = [];
    await until("the victim's frame", () => got.push(...victim.guest.receive()) > 0);
    assertEquals(got, [secret]);
    old.guest.send([frame({ dst: macPeer, src: macVictim })]);
    old.signal();
    const own = frame({ dst: macPeer, src: macVictim, bytes: 300 });
    victim.guest.send([own]);
    victim.signal();
    const arrived: Uint8Array[] = [];
    await until("the victim's own frame", () => arrived.push(...peer.guest.receive()) > 0);
    assertEquals(arrived, [own]);
    assertEquals(old.guest.receive(), []);
    await must(leaseUrl(fabric, 2), "DELETE");
    await bystanders.check();
  }
  assertEquals(await freeBytes(fabric), free);
});

Deno.test("an allotted VF is returned without its guest's consent: the next VLAN's guest is alone on it", async () => {
  const address = shellAddress();
  await using fabric = await TestFabric.start(2, ["--shells", address]);
  const api = `${fabric.info.api}/api/v1`;
  const { id, socket } = await must(`${api}/vports`, "POST", { vlan: 100 });
  await fabric.patch(0, { vlan: 200 });
  await fabric.patch(1, { vlan: 200 });
  await using peer = await DirectGuest.attach(fabric, 1);
  await using evil = await HostileGuest.boot(fabric, `vport${id}`, socket, address);
  evil.conduct = { givesBack: false };
  assertEquals((await put(fabric, `vports/${id}/mode`, { mode: "passthrough" })).status, 200);
  assertEquals((await must(`${api}/vports/${id}`)).vf, 0);
  const direct = there(evil.direct);
  assertEquals((await put(fabric, `vports/${id}/mode`, { mode: "emulated" })).body.mode, "emulated");
  assertEquals([(await must(`${api}/vports/${id}`)).vf, (await must(leaseUrl(fabric, 0))).driver], [null, "nobody"]);
  await checkStale(direct);
  // Its frames do not reach VLAN 200, and the rightful guest has the VF.
  await using rightful = await DirectGuest.attach(fabric, 0);
  peer.guest.fill(32);
  direct.guest.send([frame({ dst: fabric.vf(1).mac, src: fabric.vf(0).mac })]);
  direct.signal();
  const own = frame({ dst: fabric.vf(1).mac, src: fabric.vf(0).mac, bytes: 300 });
  rightful.guest.send([own]);
  rightful.signal();
  const got: Uint8Array[] = [];
  await until("the rightful guest's frame", () => got.push(...peer.guest.receive()) > 0);
  assertEquals(got, [own]);
});

Deno.test("a token ends with its change: one that was undone gives no VF later", async () => {
  const address = shellAddress();
  await using fabric = await TestFabric.start(2, ["--shells", address]);
  const { id, socket } = await must(`${fabric.info.api}/api/v1/vports`, "POST", {});
  await using evil = await HostileGuest.boot(fabric, `vport${id}`, socket, address);
  evil.conduct = {
    takes: false,
    answers: { "/api/v1/path/passthrough": () => Response.json({ detail: "no, thank you" }, { status: 409 }) },
  };
  const refused = await put(fabric, `vports/${id}/mode`, { mode: "passthrough" });
  assertEquals(refused.status, 409, JSON.stringify(refused.body));
  assertEquals((await must(`${fabric.info.api}/api/v1/vports/${id}`)).vf, null);
  const order = there(evil.order);
  assertEquals((await assertRejects(() => evil.take(order), DeviceRefusal) as DeviceRefusal).code, "bad-token");
  // Nor does one whose change has been done, or was cut off by its deadline.
  evil.conduct = { takes: false };
  assertEquals((await put(fabric, `vports/${id}/mode`, { mode: "passthrough" })).body.reason, "plugin-failed");
  const second = there(evil.order);
  assert(second.token !== order.token);
  assertEquals((await assertRejects(() => evil.take(second), DeviceRefusal) as DeviceRefusal).code, "bad-token");
});

const drip = () =>
  new Response(
    new ReadableStream({
      async pull(controller) {
        controller.enqueue(new TextEncoder().encode(" "));
        await new Promise((resolve) => setTimeout(resolve, 50));
      },
    }),
  );
const path = "/api/v1/path/emulated";
/** Ways not to give a VF back. */
const CONDUCTS: Record<string, Conduct> = {
  "refuses": { answers: { [path]: () => Response.json({ detail: "never" }, { status: 409 }) } },
  "never answers": { answers: { [path]: () => undefined, "/api/v1/path/quiesce": () => undefined } },
  "answers byte by byte": { answers: { [path]: drip } },
  "answers with another mode": { answers: { [path]: () => Response.json({ mode: "sideways", connected: 7 }) } },
  "answers with a page": { answers: { [path]: () => new Response("<html>") } },
  "answers with 10 MB": { answers: { [path]: () => new Response(" ".repeat(10_000_000)) } },
  "answers with control characters": {
    answers: { [path]: () => Response.json({ mode: "emulated", connected: true, lastFault: "\x1b[2J\u202e" }) },
  },
  "refuses with control characters, and a reason of its own": {
    answers: {
      [path]: () => Response.json({ detail: `\x1b[2J\u202e${"x".repeat(5000)}`, reason: "held" }, { status: 409 }),
    },
  },
  "refuses with nothing": { answers: { [path]: () => Response.json(null, { status: 409 }) } },
  "says that it has, and has not": {},
  "sends its hypervisor elsewhere": { answers: { [path]: () => Response.redirect("http://127.0.0.1:1/") } },
};

Deno.test("a guest that does not give its VF back loses it all the same, by name, and its neighbours do not notice", async (t) => {
  const address = shellAddress();
  await using fabric = await TestFabric.start(3, ["--shells", address]);
  await using bystanders = await Bystanders.attach(fabric);
  await using evil = await HostileGuest.boot(fabric, "2", fabric.vf(2).socket, address);
  const free = await freeBytes(fabric);
  for (const [name, conduct] of Object.entries(CONDUCTS)) {
    for (const force of [false, true]) {
      await t.step(`${name}${force ? ", and is not asked" : ""}`, async () => {
        evil.conduct = {};
        assertEquals((await put(fabric, "vfs/2/mode", { mode: "passthrough" })).status, 200);
        const direct = there(evil.direct);
        evil.conduct = { givesBack: false, ...conduct };
        const answer = await put(fabric, "vfs/2/mode", { mode: "emulated", ...(force ? { force } : {}) });
        assertEquals([answer.status, answer.body.mode], [200, "emulated"], JSON.stringify(answer.body));
        const step = answer.body.steps.find(({ step }: { step: string }) => step === "the plugin gives the VF back");
        assertEquals(step === undefined, force);
        assert(!/\p{C}/u.test(step?.error ?? "") && (step?.error ?? "").length < 1200, step?.error);
        assertEquals((await must(leaseUrl(fabric, 2))).driver, "hypervisor");
        await checkStale(direct);
        await direct[Symbol.asyncDispose]();
        evil.direct = undefined;
        await bystanders.check();
      });
    }
  }
  const refused = await put(fabric, "vfs/2/mode", { mode: "passthrough", force: true });
  assertEquals([refused.status, refused.body.field], [422, "force"]);
  assertEquals(await freeBytes(fabric), free);
});

// Plugins that do not come back ------------------------------------------------------------------------------

const keys = await generateKeys();
const trustFile = Deno.makeTempFileSync({ prefix: "ringfabric-trust-" });
Deno.writeTextFileSync(trustFile, `${keys.publicKey}\n`);
globalThis.addEventListener("unload", () => Deno.removeSync(trustFile));

/** What is in the guest's RAM where a plugin leaves its traces. */
function traceOf(pid: number): number {
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    const link = `/proc/${pid}/fd/${name}`;
    if (!Deno.readLinkSync(link).includes("memfd:ringfabric-guest")) continue;
    using file = Deno.openSync(link);
    file.seekSync(BUFFERS + PLUGIN_TRACE - PLUGIN_BUFFERS, Deno.SeekMode.Start);
    const word = new Uint8Array(4);
    file.readSync(word);
    return new DataView(word.buffer).getUint32(0, true);
  }
  throw new Error(`process ${pid} has no guest's RAM`);
}

const threadsOf = (pid: number) => [...Deno.readDirSync(`/proc/${pid}/task`)].length;

Deno.test("plugins that do not come back end with the VF: on one thread, and without a trace afterwards", async (t) => {
  await using fabric = await TestFabric.start(2, ["--guests", "2", "--trust", trustFile]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const pid = fabric.guestPid(0);
  if (pid === undefined) throw new Error("guest 0 does not run");
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  await setMode(fabric, 0, { mode: "emulated" });
  const threads = threadsOf(pid);
  for (const [i, [name, functions]] of Object.entries(ENDLESS).entries()) {
    for (const force of [false, true]) {
      await t.step(`${name}${force ? ", taken by force" : ""}`, async () => {
        const version = `1.${i}.${Number(force)}`;
        const image = await sign(await compilePlugin({ start: RINGS, ...functions }), keys, { version });
        await must(`${fabric.url("vf")}/api/v1/plugins`, "POST", image);
        // One that hangs at once does not get the VF; the others lose it.
        await put(fabric, "vfs/0/mode", { mode: "passthrough", plugin: `test@${version}` });
        await a.ping(b.ip, 1, { timeoutMs: 50 });
        const back = await put(fabric, "vfs/0/mode", { mode: "emulated", ...(force ? { force } : {}) });
        assertEquals([back.status, back.body.mode], [200, "emulated"], JSON.stringify(back.body));
        await a.reaches(b.ip);
        const trace = traceOf(pid);
        await checkedStream(a, b, { rate: 5000, count: 500 });
        assertEquals([traceOf(pid), fabric.guestPid(0)], [trace, pid]);
        await until("no other thread", () => threadsOf(pid) <= threads);
      });
    }
  }
});

Deno.test("a plugin that reports none of its frames as sent is ended without being asked", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2", "--trust", trustFile]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const swallows = { start: RINGS, tx: "export function tx(pair: u32, count: u32): u32 { return count; }" };
  await must(`${fabric.url("vf")}/api/v1/plugins`, "POST", await sign(await compilePlugin(swallows), keys));
  await setMode(fabric, 0, { mode: "passthrough", plugin: "test" });
  await a.ping(b.ip, 1, { timeoutMs: 50 });
  const mode = await until("the guest to be emulated again", async () => {
    const mode = await must(`${fabric.info.api}/api/v1/vfs/0/mode`);
    return mode.mode === "emulated" && !mode.changing ? mode : undefined;
  }, 20_000);
  assert(/it has sent none of/.test(mode.lastFailure.detail), JSON.stringify(mode));
  await a.reaches(b.ip);
  assert((await must(`${a.api}/api/v1/stats`)).counters.tx_lost > 0);
});

Deno.test("a plugin that had nothing to send for long is not taken for one that sends nothing", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  for (const plugin of ["advanced", "virtio"]) {
    for (const vf of [0, 1]) await setMode(fabric, vf, { mode: "passthrough", plugin });
    await a.reaches(b.ip);
    // Longer than a plugin may take to send a frame.
    const end = performance.now() + 6000;
    await until("some idle seconds", () => performance.now() > end);
    await checkedStream(a, b, { rate: 5000, count: 500 });
    for (const vf of [0, 1]) assertEquals((await must(`${fabric.info.api}/api/v1/vfs/${vf}/mode`)).plugin, plugin);
  }
});

Deno.test(`${TAKE_BACKS} forced take-backs from a plugin that refuses, beside a checked stream: nothing lost, nothing left`, async () => {
  await using fabric = await TestFabric.start(3, ["--guests", "3", "--trust", trustFile]);
  const [a, b, c] = [0, 1, 2].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest];
  const functions = { start: RINGS, ...ENDLESS["does not send and does not end"] };
  const image = await sign(await compilePlugin(functions), keys);
  await must(`${fabric.url("vf")}/api/v1/plugins`, "POST", image);
  for (const vf of [1, 2]) await setMode(fabric, vf, { mode: "passthrough", plugin: "advanced" });
  const takeBack = async () => {
    await setMode(fabric, 0, { mode: "passthrough", plugin: "test" });
    await setMode(fabric, 0, { mode: "emulated", force: true });
  };
  await takeBack();
  const pids = [fabric.pid("nic"), fabric.pid("vhost"), fabric.guestPid(0) ?? 0];
  const [descriptors, threads, free] = [openDescriptors(...pids), pids.map(threadsOf), await freeBytes(fabric)];
  const stream = await Stream.start(b, c, { rate: 10_000, size: 128 });
  // The refusing guest has something to send, so that its plugin has something to keep.
  await a.send(b.ip, { rate: 1000, size: 128 });
  for (let i = 0; i < TAKE_BACKS; i++) await takeBack();
  await stream.end();
  await untilNoMoreDescriptors(descriptors);
  await until("no other thread", () => pids.every((pid, i) => threadsOf(pid) <= (threads[i] ?? 0)));
  assertEquals(await freeBytes(fabric), free);
  await a.reaches(b.ip);
});
