/**
 * Who may change something on a port while something else happens there: one operator at a time, operators before what a
 * guest's reports set off, and force before everybody. And what a guest's reports do set off.
 */
import "../support/quiet.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ApiError, type ModeEvent, type ModeRequest } from "../../shared/api/mod.ts";
import { Change } from "../../services/vf/change.ts";
import { PortTurns } from "../../services/vf/port_turns.ts";
import { refusal } from "../support/fake_shell.ts";
import { modeTest, type ModeWorld } from "../support/mode_world.ts";

const PASSTHROUGH: ModeRequest = { mode: "passthrough", plugin: "advanced" };
const EMULATED: ModeRequest = { mode: "emulated" };

async function isBusy(promise: Promise<unknown>): Promise<void> {
  const error = await assertRejects(() => promise, ApiError) as ApiError;
  assertEquals([error.status, error.reason], [409, "operation-in-progress"]);
}

modeTest("a second change on a port is refused meanwhile; other ports go their way", async (world) => {
  world.port(0);
  world.port(1);
  const first = world.modes.set(0, PASSTHROUGH);
  assertEquals((await world.modes.get(0)).changing, true);
  await isBusy(world.modes.set(0, EMULATED));
  const other = world.modes.set(1, PASSTHROUGH);
  assertEquals([(await world.time.run(first)).changing, (await world.time.run(other)).mode], [false, "passthrough"]);
  assertEquals((await world.modes.get(0)).changing, false);
});

modeTest("force ends a change that waits for its guest, at once, and then has its turn", async (world) => {
  const guest = world.port(0);
  for (const part of ["passthrough", "allowTx"]) guest.troubles.always(part, "silence");
  const change = world.modes.set(0, PASSTHROUGH);
  const ended = assertRejects(() => change, ApiError);
  await world.time.settle();
  const start = world.time.now;
  const { status, body } = await world.put(0, { mode: "emulated", force: true });
  const error = await ended as ApiError;
  assertEquals([error.status, error.reason, error.message], [409, "taken-by-force", "the VF is taken back by force"]);
  assertEquals(world.time.now, start, "nobody was waited for");
  // The first change has put the guest back by then, and had no time to let it send.
  assertEquals([status, body.mode, guest.asked.at(-1)], [200, "emulated", "allowTx"]);
  assertEquals([world.paths.get(0), world.driverOf(0), world.holds.size], ["emulated", "hypervisor", 0]);
});

modeTest("force ends a change's wait for its guest: the VF is taken back at once", async (world) => {
  const guest = await world.driven(0);
  for (const part of ["quiesce", "emulated", "allowTx"]) guest.troubles.always(part, "silence");
  const change = world.modes.set(0, EMULATED);
  await world.time.settle();
  const start = world.time.now;
  const forced = world.put(0, { mode: "emulated", force: true });
  assertEquals((await world.time.run(change)).mode, "emulated");
  assertEquals([(await forced).body.mode, world.driverOf(0)], ["emulated", "hypervisor"]);
  assert(world.time.now - start <= 1000, "the VF is back at once; the guest may take its second to send again");
});

modeTest("force ends a change between plugins: none of them gets the VF", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.always("passthrough", "silence");
  const change = assertRejects(() => world.modes.set(0, { mode: "passthrough", plugin: "virtio" }), ApiError);
  // It waits for the new plugin.
  await world.time.settle();
  assertEquals(guest.asked.at(-1), "passthrough");
  await world.put(0, { mode: "emulated", force: true });
  assertEquals((await change as ApiError).reason, "taken-by-force");
  assertEquals(guest.asked.filter((part) => part === "inject").length, 1, "the old plugin is not asked for either");
  assertEquals([world.paths.get(0), world.driverOf(0)], ["emulated", "hypervisor"]);
});

// What guests' reports set off ---------------------------------------------------------------------------------

modeTest("a guest that has booted begins emulated, and is asked nothing for that", async (world) => {
  const guest = await world.driven(0);
  await world.time.run(world.modes.booted(0));
  assertEquals([world.paths.get(0), world.driverOf(0)], ["emulated", "hypervisor"]);
  assertEquals(world.calls, ["hold 0 10000", "takeBack 0", "setDataPath 0 emulated", "release 0"]);
  assertEquals(guest.asked, ["allowTx"]);
});

modeTest("what a guest's boot sets off gives way to an operator's change that is under way", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.next("quiesce", "silence");
  const change = world.modes.set(0, EMULATED);
  await isBusy(world.modes.booted(0));
  await world.time.run(change);
});

modeTest("an operator waits for what a boot has set off; the guest has its whole time after that", async (world) => {
  const guest = world.port(0);
  world.troubles.next("takeBack", "silence");
  const booted = assertRejects(() => world.modes.booted(0), ApiError);
  await world.time.settle();
  const passthrough = world.put(0, PASSTHROUGH);
  await isBusy(world.modes.booted(0));
  assertEquals([(await passthrough).status, world.driverOf(0), guest.givenMs.at(-1)], [200, "guest", 5000]);
  await booted;
});

modeTest("a boot that the NIC or vhost does not let be set up leaves nothing held", async (world) => {
  await world.driven(0);
  for (const call of ["takeBack", "setDataPath"]) {
    world.troubles.next(call, refusal("unreachable", 503));
    await assertRejects(() => world.modes.booted(0), ApiError);
    assertEquals(world.holds.size, 0, call);
  }
  await world.time.run(world.modes.booted(0));
  assertEquals(world.driverOf(0), "hypervisor");
});

/** A guest that reports; what it says of itself is up to the test. */
async function report(world: ModeWorld): Promise<void> {
  await world.time.pass(1000);
  await world.time.run(world.modes.reconcile(0));
}

modeTest("a guest whose port is as it says is left alone", async (world) => {
  const emulated = world.port(0);
  await report(world);
  assertEquals([emulated.asked, world.calls], [[], []]);
  const driving = await world.driven(0);
  await report(world);
  assertEquals([driving.asked, world.calls], [[], []]);
});

modeTest("a guest whose plugin has failed is emulated again, and its fault is told", async (world) => {
  const guest = await world.driven(0);
  guest.giveBack();
  guest.mode = { mode: "emulated", connected: true, lastFault: "the plugin failed: unreachable" };
  await report(world);
  const { mode, lastFailure } = await world.get(0);
  assertEquals([mode, lastFailure], [
    "emulated",
    { reason: "plugin-failed", detail: "the plugin failed: unreachable" },
  ] as unknown);
  assertEquals(world.driverOf(0), "hypervisor");
});

modeTest("a guest that says that it drives its VF, and does not, has lost it: the NIC's word counts", async (world) => {
  const guest = await world.driven(0);
  guest.giveBack();
  await report(world);
  assertEquals([world.paths.get(0), world.driverOf(0)], ["emulated", "hypervisor"]);
  assertEquals((await world.get(0)).lastFailure?.detail, "the guest left the VF by itself");
});

modeTest(
  "whoever listens is told of every change of a mode, whatever it comes from, and of failures",
  async (world) => {
    const told: ModeEvent[] = [];
    const stop = world.modes.subscribe((event) => told.push(event));
    const guest = world.port(0);
    await world.put(0, PASSTHROUGH);
    guest.giveBack();
    guest.mode = { mode: "emulated", connected: true, lastFault: "it trapped" };
    await report(world);
    await world.time.run(world.modes.booted(0));
    await world.put(0, PASSTHROUGH);
    await world.time.run(world.modes.booted(0));
    guest.troubles.always("inject", refusal("plugin-failed"));
    const { body } = await world.put(0, PASSTHROUGH);
    stop();
    await world.put(0, EMULATED);
    const changed = { type: "mode-changed", port: 0 };
    assertEquals(told as unknown, [
      { ...changed, mode: "passthrough", plugin: "advanced" },
      { ...changed, mode: "emulated", reason: "plugin-failed", detail: "it trapped" },
      { ...changed, mode: "passthrough", plugin: "advanced" },
      { ...changed, mode: "emulated", reason: "guest-booted", detail: "another guest has booted on the port" },
      {
        type: "mode-failed",
        port: 0,
        mode: "emulated",
        dataPath: "copy",
        reason: "plugin-failed",
        detail: body.detail,
      },
    ]);
  },
);

modeTest("a guest whose connection to vhost came back while its plugin went on keeps its VF", async (world) => {
  await world.driven(0);
  world.paths.set(0, "emulated");
  await report(world);
  assertEquals([world.paths.get(0), world.driverOf(0)], ["guest", "guest"]);
  assertEquals((await world.get(0)).lastFailure, undefined);
});

modeTest("a report from before the last step sets nothing off: the guest is asked once more", async (world) => {
  const guest = await world.driven(0);
  const now = guest.mode;
  guest.mode = { mode: "emulated", connected: true };
  guest.refresh = () => {
    guest.mode = now;
    return Promise.resolve();
  };
  await report(world);
  assertEquals([world.calls, world.driverOf(0)], [[], "guest"]);
});

modeTest("however often a guest reports, its port is looked at no more than five times a second", async (world) => {
  const guest = world.port(0);
  world.paths.set(0, "guest");
  guest.troubles.always("refresh", new Error("not now"));
  world.troubles.always("takeBack", refusal("unreachable", 503));
  for (let i = 0; i < 100; i++) {
    await world.time.pass(10);
    await world.time.run(world.modes.reconcile(0).catch(() => {}));
  }
  const looks = guest.asked.filter((part) => part === "refresh").length;
  assert(looks === 5, `it was looked at ${looks} times in a second`);
});

modeTest("while a change is under way no report sets anything off", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.next("emulated", "silence");
  const change = world.modes.set(0, EMULATED);
  await world.time.settle();
  guest.giveBack();
  await world.modes.reconcile(0);
  assertEquals(guest.asked.includes("refresh"), false);
  await world.time.run(change);
});

modeTest("the list of modes has every VF's, by its port", async (world) => {
  await world.driven(0);
  world.port(1);
  world.port("vport0");
  assertEquals((await world.modes.list()).map(({ vf, mode, plugin }) => [vf, mode, plugin]), [
    [0, "passthrough", "advanced"],
    [1, "emulated", undefined],
  ]);
});

// Turns --------------------------------------------------------------------------------------------------------

Deno.test("no report comes between something that ends and an operator who has waited for it", async () => {
  const turns = new PortTurns();
  const [report, operator] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const ends = [
    turns.take(0, {}, () => report.promise),
    turns.take(0, { change: new Change() }, () => operator.promise),
  ];
  report.resolve();
  const others: Promise<string>[] = [];
  for (let i = 0; i < 20; i++) {
    others.push(turns.take(0, {}, () => Promise.resolve("between")).catch(() => "refused"));
    await Promise.resolve();
  }
  assertEquals(new Set(await Promise.all(others)), new Set(["refused"]));
  operator.resolve();
  await Promise.all(ends);
});

Deno.test("a turn ends with what is done in it, well or not", async () => {
  const turns = new PortTurns();
  await assertRejects(() => turns.take(0, {}, () => Promise.reject(new Error("no"))), Error, "no");
  assertEquals(turns.has(0), false);
  assertEquals(await turns.take(0, {}, () => Promise.resolve(turns.has(0))), true);
  assertEquals([turns.has(0), turns.has("vport0")], [false, false]);
});

modeTest("a change waits for a guest's first report, which has its turn before it", async (world) => {
  const guest = world.port(0, { shell: false });
  world.firstReport = async (port) => {
    await world.modes.booted(0);
    world.shells.set(port, guest);
  };
  const { mode } = await world.time.run(world.modes.set(0, PASSTHROUGH));
  assertEquals([mode, world.driverOf(0)], ["passthrough", "guest"]);
});
