/**
 * A guest goes over to its VF: the steps, in their order; what is taken back when one of them fails; and how long a guest
 * is waited for. Whatever happens, somebody drives the guest's data path afterwards, its frames go out, and the reason
 * can be read.
 */
import "../support/quiet.ts";
import { assert, assertEquals } from "@std/assert";
import { ApiError } from "../../shared/api/mod.ts";
import { type FakeShell, refusal, type Trouble } from "../support/fake_shell.ts";
import { modeTest, type ModeWorld } from "../support/mode_world.ts";

const REQUEST = { mode: "passthrough", plugin: "advanced" } as const;
const STEPS = [
  "inject the plugin",
  "the NIC holds the VF's frames",
  "the guest stops sending",
  "vhost lets go of the VF",
  "the plugin takes the VF",
];

/** The guest is where it was: vhost serves its rings, nothing is held, and its frames go out. */
function assertEmulated(world: ModeWorld, guest: FakeShell): void {
  assertEquals([world.paths.get(0), world.driverOf(0)], ["emulated", "hypervisor"]);
  assertEquals([...world.holds.keys()], []);
  assert(guest.sends, "the guest sends");
}

modeTest("nobody drives the VF between two who do: hold, rest, let go, take, deliver", async (world) => {
  const guest = world.port(0);
  const { status, body } = await world.put(0, REQUEST);
  assertEquals([status, body.mode, body.changing], [200, "passthrough", false]);
  assertEquals([body.plugin, body.version], ["advanced", "2.0.0"]);
  assertEquals(body.steps?.map(({ step }) => step), STEPS);
  assertEquals(world.calls, ["hold 0 10000", "setDataPath 0 guest", "release 0"]);
  assertEquals(guest.asked, ["inject", "quiesce", "passthrough"]);
  assertEquals([world.driverOf(0), world.paths.get(0), world.holds.size, guest.sends], ["guest", "guest", 0, true]);
  assertEquals((await world.get(0)).lastFailure, undefined);
});

modeTest("a guest that drives its VF is asked nothing when the same plugin is wanted again", async (world) => {
  const guest = await world.driven(0);
  assertEquals((await world.put(0, REQUEST)).status, 200);
  assertEquals([world.calls, guest.asked], [[], []]);
});

modeTest("a guest that says that it drives its VF, and has lost it, gets it again", async (world) => {
  const guest = await world.driven(0);
  guest.giveBack();
  assertEquals((await world.put(0, REQUEST)).status, 200);
  assertEquals([world.driverOf(0), guest.sends], ["guest", true]);
});

/** What fails, at whom; how many steps are told of; which reason is given. */
const FAILURES: [string, { of: "guest" | "peers"; call: string; trouble: Trouble; steps: number; reason: string }][] = [
  ["the guest does not take the plugin", {
    ...{ of: "guest", call: "inject", steps: 1, reason: "plugin-rejected" },
    trouble: new ApiError(422, "the guest: plugin rejected: unknown key", "plugin"),
  }],
  ["the NIC is changing the VF's driver already", {
    ...{ of: "peers", call: "hold", trouble: refusal("held"), steps: 2, reason: "operation-in-progress" },
  }],
  ["the NIC has no room for a hold", {
    ...{ of: "peers", call: "hold", trouble: refusal("arena-full"), steps: 2, reason: "memory-not-shareable" },
  }],
  ["the NIC does not answer", {
    ...{ of: "peers", call: "hold", trouble: refusal("unreachable", 503), steps: 2, reason: "unreachable" },
  }],
  ["the guest does not come to rest", {
    ...{ of: "guest", call: "quiesce", trouble: new ApiError(409, "frames were not sent"), steps: 3 },
    reason: "step-failed",
  }],
  ["vhost does not let go", {
    ...{ of: "peers", call: "setDataPath", trouble: new ApiError(409, "the queue did not run empty"), steps: 4 },
    reason: "step-failed",
  }],
  ["the plugin does not start", {
    ...{ of: "guest", call: "passthrough", trouble: refusal("plugin-failed"), steps: 5, reason: "plugin-failed" },
  }],
  ["the NIC does not say who drives the VF", {
    ...{ of: "peers", call: "leaseOf", trouble: refusal("unreachable", 503), steps: 0, reason: "unreachable" },
  }],
  ["something that has no name", {
    ...{ of: "peers", call: "hold", trouble: new Error("cannot be"), steps: 2, reason: "step-failed" },
  }],
];

for (const [name, { of, call, trouble, steps, reason }] of FAILURES) {
  modeTest(`${name}: everything so far is taken back, and the reason stays to be read`, async (world) => {
    const guest = world.port(0);
    (of === "guest" ? guest : world).troubles.next(call, trouble);
    const { status, body } = await world.put(0, REQUEST);
    assert(status >= 400, `it is refused, not ${status}`);
    assertEquals(body.reason, reason);
    assertEquals(body.detail, (trouble as Error).message);
    const after = await world.get(0);
    assertEquals([after.mode, after.lastFailure], ["emulated", { reason, detail: body.detail }]);
    assertEquals(after.steps?.map(({ step }) => step), STEPS.slice(0, steps));
    if (steps > 0) assertEquals(after.steps?.at(-1)?.error, body.detail);
    assertEmulated(world, guest);
    // It was nothing that lasts.
    assertEquals((await world.put(0, REQUEST)).status, 200);
    assertEquals((await world.get(0)).lastFailure, undefined);
  });
}

for (const call of ["inject", "quiesce", "passthrough"]) {
  modeTest(`a guest that never answers to ${call} holds nobody up for more than its five seconds`, async (world) => {
    const guest = world.port(0);
    guest.troubles.always(call, "silence");
    const start = world.time.now;
    const { body } = await world.put(0, REQUEST);
    assertEquals(body.reason, "unreachable");
    // What is taken back may take a second more, and does if the guest is asked for that.
    assert(world.time.now - start <= 6000, `it took ${world.time.now - start} ms`);
    assertEmulated(world, guest);
  });
}

modeTest("a guest that takes its time is given what is left of it, whatever the step", async (world) => {
  const guest = world.port(0);
  guest.tookMs.set("quiesce", 3000).set("passthrough", 1500);
  assertEquals((await world.put(0, REQUEST)).status, 200);
  assertEquals(guest.givenMs, [5000, 5000, 2000]);
});

modeTest("a guest that says that it drives the VF, and does not, loses its right to it", async (world) => {
  const guest = world.port(0);
  guest.lies = true;
  const { body } = await world.put(0, REQUEST);
  assertEquals([body.reason, body.detail], ["plugin-failed", "the guest says that it drives the VF, and does not"]);
  assertEquals(
    world.calls.join(", "),
    "hold 0 10000, setDataPath 0 guest, takeBack 0, setDataPath 0 emulated, release 0",
  );
  assertEmulated(world, guest);
});

modeTest("a guest that drives the VF by another hold is not taken for the one that was meant", async (world) => {
  const guest = world.port(0);
  // It has kept the token of an earlier change, which came to nothing.
  world.holds.set(0, { token: "old", id: "hold-old" });
  guest.take(0, "old");
  guest.lies = true;
  world.paths.set(0, "emulated");
  const { body } = await world.put(0, REQUEST);
  assertEquals(body.reason, "plugin-failed");
  assertEquals(world.driverOf(0), "hypervisor");
});

modeTest("a guest that takes the VF and says that it could not loses it again", async (world) => {
  const guest = world.port(0);
  const passthrough = guest.passthrough.bind(guest);
  guest.passthrough = async (vf, token, ms) => {
    await passthrough(vf, token, ms);
    throw refusal("plugin-failed");
  };
  assertEquals((await world.put(0, REQUEST)).body.reason, "plugin-failed");
  assertEmulated(world, guest);
});

modeTest("if the hold cannot be ended, the VF is not left with a guest that waits for what is held", async (world) => {
  const guest = world.port(0);
  world.troubles.next("release", refusal("unreachable", 503));
  assertEquals((await world.put(0, REQUEST)).body.reason, "unreachable");
  assertEmulated(world, guest);
});

modeTest("taking back goes on where a part of it fails", async (world) => {
  const guest = world.port(0);
  guest.troubles.next("passthrough", refusal("plugin-failed"));
  guest.troubles.always("allowTx", "silence");
  world.troubles.next("takeBack", refusal("unreachable", 503));
  assertEquals((await world.put(0, REQUEST)).body.reason, "plugin-failed");
  assertEquals([world.paths.get(0), world.holds.size], ["emulated", 0]);
  assertEquals(guest.asked.at(-1), "allowTx");
});
