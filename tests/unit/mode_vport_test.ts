/** Modes of guests without a VF: passthrough allots one to them, emulated gives it back, and a failure leaves them none. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import { refusalOf } from "../support/app.ts";
import { type FakeShell, refusal } from "../support/fake_shell.ts";
import { modeTest, type ModeWorld } from "../support/mode_world.ts";

const VF = 7;
const REQUEST = { mode: "passthrough", plugin: "advanced" } as const;

/** The guest is on the switch, its frames go out, and no VF is its own. */
function assertOnSwitch(world: ModeWorld, guest: FakeShell): void {
  assertEquals([world.paths.get("vport0"), world.allotted.get("vport0")], ["emulated", null]);
  assertEquals([world.driverOf(VF), world.holds.size, guest.sends], ["nobody", 0, true]);
}

modeTest("a VF is allotted first, and given back last", async (world) => {
  const guest = world.port("vport0");
  const { status, body } = await world.put("vport0", REQUEST);
  assertEquals([status, body.mode, body.plugin], [200, "passthrough", "advanced"]);
  assertEquals(body.steps?.[0]?.step, "a VF is allotted");
  assertEquals(world.calls, ["allotVf vport0", "hold 7 10000", "setDataPath vport0 guest", "release 7"]);
  assertEquals([world.driverOf(VF), world.allotted.get("vport0")], ["guest", VF]);

  world.calls.length = 0;
  const back = await world.put("vport0", { mode: "emulated" });
  assertEquals(back.status, 200);
  assertEquals(back.body.steps?.slice(-2).map(({ step }) => step), ["the guest sends again", "the VF is given back"]);
  assertEquals(
    world.calls.join(", "),
    "hold 7 10000, takeBack 7, setDataPath vport0 emulated, release 7, returnVf vport0",
  );
  assertOnSwitch(world, guest);
});

modeTest("no VF is left: nothing has happened, and the PF's reason is passed on", async (world) => {
  const guest = world.port("vport0");
  world.troubles.next("allotVf", refusal("no-vf-left"));
  const { status, body } = await world.put("vport0", REQUEST);
  assertEquals([status, body.reason, guest.asked], [409, "no-vf-left", []]);
  assertOnSwitch(world, guest);
});

for (const call of ["inject", "quiesce", "passthrough"]) {
  modeTest(`a guest that fails to ${call} has its VF taken away again`, async (world) => {
    const guest = world.port("vport0");
    guest.troubles.next(call, refusal("plugin-failed"));
    assertEquals((await world.put("vport0", REQUEST)).body.reason, "plugin-failed");
    assertEquals(world.calls.at(-1), "returnVf vport0");
    assertOnSwitch(world, guest);
  });
}

modeTest("a plugin for other rings than the VF presents costs it the VF, too", async (world) => {
  const guest = world.port("vport0");
  world.hardware.set(VF, "virtio");
  assertEquals((await world.put("vport0", REQUEST)).body.reason, "incompatible-plugin");
  assertEquals(world.calls, ["allotVf vport0", "returnVf vport0"]);
  assertOnSwitch(world, guest);
});

modeTest("between two plugins the guest keeps its VF", async (world) => {
  await world.driven("vport0");
  assertEquals((await world.put("vport0", { mode: "passthrough", plugin: "virtio" })).body.plugin, "virtio");
  assertEquals(world.calls.filter((call) => call.endsWith("vport0") && !call.startsWith("setDataPath")), []);
  assertEquals(world.allotted.get("vport0"), VF);
});

modeTest("if the guest is emulated since neither plugin started, its VF is given back", async (world) => {
  const guest = await world.driven("vport0");
  guest.troubles.always("passthrough", refusal("plugin-failed"));
  await world.put("vport0", { mode: "passthrough", plugin: "virtio" });
  assertOnSwitch(world, guest);
});

modeTest("a PF that is away keeps no guest at rest; the VF is given back with the next attempt", async (world) => {
  const guest = await world.driven("vport0");
  world.troubles.next("returnVf", refusal("unreachable", 503));
  const { status, body } = await world.put("vport0", { mode: "emulated" });
  assertEquals([status, body.reason], [503, "unreachable"]);
  assertEquals([world.paths.get("vport0"), world.driverOf(VF), guest.sends], ["emulated", "nobody", true]);
  assertEquals(world.allotted.get("vport0"), VF);
  const again = await world.put("vport0", { mode: "emulated" });
  assertEquals(again.status, 200);
  assertEquals(again.body.steps?.map(({ step }) => step), ["the VF is given back"]);
  assertOnSwitch(world, guest);
});

modeTest("a guest without a shell cannot drive a VF, and is told what to do", async (world) => {
  world.port("vport0", { shell: false });
  assertEquals(
    refusalOf(await world.put("vport0", { mode: "passthrough" })),
    "409 mode (incompatible-plugin): " +
      "the guest of vport0 has no shell that could drive a VF: attach it to a VF's socket instead",
  );
  assertEquals(world.calls, ["allotVf vport0", "returnVf vport0"]);
});

modeTest("while a VF is allotted, its own port's mode can be looked at, and not changed", async (world) => {
  await world.driven("vport0");
  world.port(VF, { shell: false });
  world.calls.length = 0;
  assertEquals(
    refusalOf(await world.put(VF, { mode: "emulated" })),
    "409 id (vf-allotted): vf 7 is allotted to a vport's guest: change that vport's mode (fabric vport list)",
  );
  assertEquals([world.calls, (await world.get(VF)).mode], [[], "emulated"], "as its own guest is");
  assertEquals((await world.get("vport0")).plugin, "advanced");
});

modeTest("a guest that has booted loses the VF of the one before it", async (world) => {
  const guest = await world.driven("vport0");
  await world.time.run(world.modes.booted("vport0"));
  assertOnSwitch(world, guest);
});
