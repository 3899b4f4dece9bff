/**
 * A VF is taken back from its guest: with the guest's help if it helps in time, and without it otherwise. Only the NIC
 * and vhost can hold that up, and from the moment the NIC has taken the VF its guest does not get it again.
 */
import "../support/quiet.ts";
import { assert, assertEquals } from "@std/assert";
import { refusalOf } from "../support/app.ts";
import { refusal, type Trouble } from "../support/fake_shell.ts";
import { modeTest, type ModeWorld } from "../support/mode_world.ts";

const EMULATED = { mode: "emulated" } as const;
const STEPS = [
  "the NIC holds the VF's frames",
  "the guest stops sending",
  "the plugin gives the VF back",
  "the NIC takes the VF back",
  "vhost drives the rings",
  "held frames are delivered",
  "the guest sends again",
];

/** The steps that need no guest. */
const WITHOUT_GUEST = STEPS.filter((step) => !/^the (guest|plugin)/.test(step));

/** vhost serves the guest's rings, and nothing of the change is left. */
function assertEmulated(world: ModeWorld): void {
  assertEquals([world.paths.get(0), world.driverOf(0), world.holds.size], ["emulated", "hypervisor", 0]);
}

modeTest("a guest that helps loses nothing: it rests, gives the VF back, and sends again", async (world) => {
  const guest = await world.driven(0);
  const { status, body } = await world.put(0, EMULATED);
  assertEquals([status, body.mode, body.changing, body.plugin], [200, "emulated", false, undefined]);
  assertEquals(body.steps?.map(({ step }) => step), STEPS);
  assertEquals(body.steps?.filter(({ error, lost }) => error !== undefined || lost !== undefined), []);
  assertEquals(world.calls, ["hold 0 10000", "takeBack 0", "setDataPath 0 emulated", "release 0"]);
  assertEquals(guest.asked, ["quiesce", "emulated", "allowTx"]);
  assertEmulated(world);
  assert(guest.sends);
});

modeTest("a guest that is emulated already is asked nothing", async (world) => {
  const guest = world.port(0);
  assertEquals((await world.put(0, EMULATED)).status, 200);
  assertEquals([world.calls, guest.asked], [[], []]);
});

const REST = "the guest stops sending";
const GIVE_BACK = "the plugin gives the VF back";
const SEND = "the guest sends again";
const SILENT = "the guest does not answer";

/** The guest's part, and what of it is shown. */
const UNHELPFUL: [string, Record<string, Trouble>, Record<string, string>][] = [
  ["refuses to rest", { quiesce: refusal("busy") }, { [REST]: "refused: busy" }],
  ["refuses to give the VF back", { emulated: refusal("no") }, { [GIVE_BACK]: "refused: no" }],
  [
    "refuses everything",
    { quiesce: refusal("busy"), emulated: refusal("no"), allowTx: refusal("never") },
    { [REST]: "refused: busy", [GIVE_BACK]: "refused: no", [SEND]: "refused: never" },
  ],
  [
    "never answers",
    { quiesce: "silence", emulated: "silence", allowTx: "silence" },
    { [REST]: SILENT, [GIVE_BACK]: SILENT, [SEND]: SILENT },
  ],
];

for (const [name, troubles, shown] of UNHELPFUL) {
  modeTest(`a guest that ${name} loses its VF all the same, and what it did is shown`, async (world) => {
    const guest = await world.driven(0);
    for (const [part, trouble] of Object.entries(troubles)) guest.troubles.always(part, trouble);
    const start = world.time.now;
    const { status, body } = await world.put(0, EMULATED);
    assertEquals([status, body.mode], [200, "emulated"]);
    assertEquals(body.steps?.map(({ step }) => step), STEPS);
    const failed = body.steps?.filter(({ error }) => error !== undefined).map(({ step, error }) => [step, error]);
    assertEquals(Object.fromEntries(failed ?? []), shown);
    assertEmulated(world);
    assert(world.time.now - start <= 3000, "two seconds for the VF, and one to have it send again");
    assertEquals((await world.get(0)).lastFailure, undefined, "it is no failure of the change");
  });
}

modeTest("a guest that is slow to rest still has its time to give the VF back", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.always("quiesce", "silence");
  await world.put(0, EMULATED);
  assertEquals(guest.givenMs, [1000, 1000, 1000]);
});

modeTest("a guest that lies about giving its VF back has it taken, and what it loses is told", async (world) => {
  const guest = await world.driven(0);
  guest.lies = true;
  const { body } = await world.put(0, EMULATED);
  assertEquals(body.steps?.find(({ step }) => step === "the NIC takes the VF back")?.lost, 3);
  assertEmulated(world);
});

modeTest("a VF is taken back whether or not there is room for a hold", async (world) => {
  await world.driven(0);
  world.troubles.next("hold", refusal("arena-full"));
  const { status, body } = await world.put(0, EMULATED);
  assertEquals([status, body.steps?.[0]?.error], [200, "refused: arena-full"]);
  assertEmulated(world);
});

modeTest("if the NIC cannot take it back, the guest keeps its VF, gets its frames, and sends again", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.next("emulated", refusal("no"));
  world.troubles.next("takeBack", refusal("unreachable", 503));
  const { status, body } = await world.put(0, EMULATED);
  assertEquals([status, body.reason], [503, "unreachable"]);
  assertEquals([world.paths.get(0), world.driverOf(0), world.holds.size, guest.sends], ["guest", "guest", 0, true]);
  assertEquals((await world.get(0)).lastFailure?.reason, "unreachable");
  assertEquals((await world.put(0, EMULATED)).status, 200);
  assertEmulated(world);
});

modeTest("if vhost is away the guest does not get its VF again; the next attempt gets it served", async (world) => {
  const guest = await world.driven(0);
  world.troubles.always("setDataPath", refusal("unreachable", 503));
  const { status, body } = await world.put(0, EMULATED);
  assertEquals([status, body.reason], [503, "unreachable"]);
  assertEquals([world.driverOf(0), world.holds.size], ["nobody", 0], "what was held is not kept for nobody");
  assertEquals(world.calls.join(", "), "hold 0 10000, takeBack 0, setDataPath 0 emulated, release 0", "once");
  world.troubles.clear();
  assertEquals((await world.put(0, EMULATED)).status, 200);
  assertEmulated(world);
  assert(guest.sends);
});

modeTest("held frames that cannot be delivered are no reason to keep the guest", async (world) => {
  await world.driven(0);
  world.troubles.next("release", refusal("unreachable", 503));
  const { status, body } = await world.put(0, EMULATED);
  assertEquals([status, body.steps?.[5]?.error], [200, "refused: unreachable"]);
});

// A guest that drives its VF, and none of its reports ----------------------------------------------------------

modeTest("a guest that no longer reports has its VF taken back without being asked", async (world) => {
  await world.driven(0);
  world.shells.clear();
  const { status, body } = await world.put(0, EMULATED);
  assertEquals(status, 200);
  assertEquals(body.steps?.map(({ step }) => step), WITHOUT_GUEST);
  assertEmulated(world);
});

modeTest("it cannot be handed to another plugin while its guest does not report", async (world) => {
  await world.driven(0);
  world.shells.clear();
  const refused = refusalOf(await world.put(0, { mode: "passthrough", plugin: "virtio" }));
  assertEquals(refused, "503 (guest-unreachable): the guest of vf 0 does not report");
  assertEquals([world.driverOf(0), world.calls], ["guest", []]);
});

// Force --------------------------------------------------------------------------------------------------------

modeTest("force asks no guest: what it loses is told, and it is only to send again", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.always("allowTx", "silence");
  const start = world.time.now;
  const { status, body } = await world.put(0, { mode: "emulated", force: true });
  assertEquals([status, body.mode], [200, "emulated"]);
  assertEquals(body.steps?.map(({ step }) => step), WITHOUT_GUEST);
  assertEquals(body.steps?.find(({ lost }) => lost !== undefined)?.lost, 3);
  assertEquals(world.time.now, start, "nobody was waited for");
  assertEquals(guest.asked, ["allowTx"]);
  assertEmulated(world);
});

modeTest("force is for a guest that drives its VF, and for emulated mode", async (world) => {
  world.port(0, { path: "passthrough", shell: false });
  assertEquals(
    refusalOf(await world.put(0, { mode: "emulated", force: true })),
    "409 force (incompatible-mode): no guest drives vf 0 by itself: leave force out",
  );
  assertEquals(
    refusalOf(await world.put(0, { mode: "passthrough", force: true })),
    "422 force (incompatible-mode): force takes a VF back without asking its guest: it goes with mode emulated only",
  );
  assertEquals(
    refusalOf(await world.put(0, { mode: "emulated", plugin: "virtio" })),
    "422 plugin (incompatible-plugin): emulated mode needs no plugin: the shell has its own",
  );
  assertEquals(world.calls, []);
});
