/** Which plugin drives a VF, whose rings go over without one, and how a change between plugins ends. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import { refusalOf } from "../support/app.ts";
import { refusal } from "../support/fake_shell.ts";
import { modeTest } from "../support/mode_world.ts";

modeTest("without a plugin named, it is the one for the rings that the VF presents", async (world) => {
  for (const [vf, hardware, plugin] of [[0, undefined, "advanced"], [1, "virtio", "virtio"]] as const) {
    world.port(vf);
    if (hardware) world.hardware.set(vf, hardware);
    assertEquals((await world.put(vf, { mode: "passthrough" })).body.plugin, plugin);
  }
});

modeTest("the newest version, or the one that is named", async (world) => {
  world.port(0);
  assertEquals((await world.put(0, { mode: "passthrough", plugin: "advanced" })).body.version, "2.0.0");
  assertEquals((await world.put(0, { mode: "passthrough", plugin: "advanced@1.0.0" })).body.version, "1.0.0");
});

modeTest("a plugin for other rings, or that nobody has, is refused before anything happens", async (world) => {
  world.port(0);
  world.hardware.set(0, "virtio");
  assertEquals(
    refusalOf(await world.put(0, { mode: "passthrough", plugin: "advanced" })),
    "409 plugin (incompatible-plugin): plugin advanced drives advanced rings: vf 0 presents virtio ones",
  );
  assertEquals((await world.put(0, { mode: "passthrough", plugin: "none" })).body.reason, "unknown-plugin");
  assertEquals(world.calls, []);
});

modeTest(
  "a plugin that runs and fits goes on where none is named, and is not swapped for the usual one",
  async (world) => {
    const guest = await world.driven(0, "advanced@1.0.0");
    const { status, body } = await world.put(0, { mode: "passthrough" });
    assertEquals([status, body.mode, body.plugin, body.version], [200, "passthrough", "advanced", "1.0.0"]);
    await world.driven(1, "virtio");
    assertEquals((await world.put(1, { mode: "passthrough" })).body.plugin, "virtio");
    assertEquals([guest.asked, world.calls], [[], []], "nobody was asked for anything");
    assertEquals(
      (await world.put(0, { mode: "passthrough", plugin: "advanced" })).body.version,
      "2.0.0",
      "a name does",
    );
  },
);

modeTest(
  "one that runs and does not fit, or that the registry has no more, is swapped for the usual one",
  async (world) => {
    await world.driven(0, "virtio");
    world.hardware.set(0, "advanced");
    assertEquals((await world.put(0, { mode: "passthrough" })).body.plugin, "advanced");
    await world.driven(1, "advanced@1.0.0");
    world.images.delete("advanced@1.0.0");
    assertEquals((await world.put(1, { mode: "passthrough" })).body.version, "2.0.0");
  },
);

modeTest("a guest that says it runs a plugin, and drives nothing, gets the usual one", async (world) => {
  const guest = await world.driven(0, "virtio");
  world.detachGuest(0);
  assertEquals(guest.mode.plugin, "virtio");
  assertEquals((await world.put(0, { mode: "passthrough" })).body.plugin, "advanced");
});

// Guests without a shell -----------------------------------------------------------------------------------------

modeTest("a guest without a shell hands over its virtio rings as they are, and need not know", async (world) => {
  world.port(0, { shell: false });
  const { status, body } = await world.put(0, { mode: "passthrough" });
  assertEquals([status, body.mode, body.plugin], [200, "passthrough", undefined]);
  assertEquals(world.calls, ["hold 0 10000", "setDataPath 0 passthrough", "release 0"]);
  assertEquals((await world.put(0, { mode: "passthrough", plugin: "virtio" })).status, 200, "its rings are virtio's");
  assertEquals(world.calls.length, 3, "and are where they should be");
  assertEquals((await world.put(0, { mode: "emulated" })).body.mode, "emulated");
  assertEquals(world.paths.get(0), "emulated");
});

modeTest("if its rings cannot go over they stay, with what was held delivered", async (world) => {
  world.port(0, { shell: false });
  world.troubles.next("setDataPath", refusal("unsealed"));
  const refused = refusalOf(await world.put(0, { mode: "passthrough" }));
  assertEquals(refused, "409 mode (memory-not-shareable): refused: unsealed");
  assertEquals([world.calls.at(-1), world.holds.size, world.paths.get(0)], ["release 0", 0, "emulated"]);
});

modeTest("it takes no plugin", async (world) => {
  world.port(0, { shell: false });
  assertEquals(
    refusalOf(await world.put(0, { mode: "passthrough", plugin: "advanced" })),
    "409 plugin (incompatible-plugin): " +
      "the guest of vf 0 has no shell that could take plugin advanced: leave the plugin out",
  );
});

// From one plugin to another -----------------------------------------------------------------------------------

const VIRTIO = { mode: "passthrough", plugin: "virtio" } as const;

modeTest("one plugin gives the VF back before the next takes it, which is in the guest by then", async (world) => {
  const guest = await world.driven(0);
  const { status, body } = await world.put(0, VIRTIO);
  assertEquals([status, body.plugin, world.driverOf(0)], [200, "virtio", "guest"]);
  assertEquals(guest.asked, ["inject", "quiesce", "emulated", "allowTx", "quiesce", "passthrough"]);
  assertEquals(
    world.calls.join(", "),
    "hold 0 10000, takeBack 0, setDataPath 0 emulated, release 0, hold 0 10000, setDataPath 0 guest, release 0",
  );
});

modeTest("a plugin that the guest does not take costs nothing: the one that runs goes on", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.next("inject", refusal("plugin-rejected", 422));
  assertEquals((await world.put(0, VIRTIO)).status, 422);
  assertEquals([(await world.get(0)).plugin, world.calls], ["advanced", []]);
});

modeTest("a plugin that does not start: the one before is put in its place again", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.next("passthrough", refusal("plugin-failed"));
  const { status, body } = await world.put(0, VIRTIO);
  assertEquals([status, body.reason], [409, "plugin-failed"]);
  const after = await world.get(0);
  assertEquals([after.mode, after.plugin, after.lastFailure?.reason], ["passthrough", "advanced", "plugin-failed"]);
  assertEquals([world.driverOf(0), world.holds.size, guest.sends], ["guest", 0, true]);
});

modeTest("if neither starts, the guest is emulated, and why the new one failed is what is told", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.always("passthrough", refusal("plugin-failed"));
  const { body } = await world.put(0, VIRTIO);
  assertEquals([body.reason, body.detail], ["plugin-failed", "refused: plugin-failed"]);
  assertEquals([(await world.get(0)).mode, world.driverOf(0), world.holds.size], ["emulated", "hypervisor", 0]);
});

modeTest("if vhost is away by then, why the new plugin failed is still what is told", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.always("passthrough", refusal("plugin-failed"));
  const passthrough = guest.passthrough.bind(guest);
  guest.passthrough = (vf, token, ms) => {
    world.troubles.always("setDataPath", refusal("unreachable", 503));
    return passthrough(vf, token, ms);
  };
  const { body } = await world.put(0, VIRTIO);
  assertEquals([body.reason, world.driverOf(0), world.holds.size], ["plugin-failed", "nobody", 0]);
  const last = (await world.get(0)).steps?.at(-1);
  assertEquals(last?.step, "held frames are delivered");
});

modeTest("a guest that does not answer is not asked to take the plugin before again", async (world) => {
  const guest = await world.driven(0);
  guest.troubles.always("passthrough", "silence");
  const start = world.time.now;
  assertEquals((await world.put(0, VIRTIO)).body.reason, "unreachable");
  assertEquals(guest.asked.filter((part) => part === "inject").length, 1);
  assertEquals([(await world.get(0)).mode, world.driverOf(0)], ["emulated", "hypervisor"]);
  // Eight seconds in all for its part, one to take back, one to send again.
  assertEquals(world.time.now - start <= 10_000, true, `it took ${world.time.now - start} ms`);
});

modeTest("a guest has eight seconds in all for its part, however many steps that has", async (world) => {
  const guest = await world.driven(0);
  guest.tookMs.set("inject", 4000).set("emulated", 1500);
  assertEquals((await world.put(0, VIRTIO)).status, 200);
  assertEquals(Object.fromEntries(guest.asked.map((part, i) => [part, guest.givenMs[i]])), {
    ...{ inject: 5000, emulated: 2000, allowTx: 1000, quiesce: 2500, passthrough: 2500 },
  });
});

modeTest("a plugin that is no longer in the registry is not put back: the guest is emulated", async (world) => {
  const guest = await world.driven(0);
  world.images.delete("advanced@2.0.0");
  guest.troubles.next("passthrough", refusal("plugin-failed"));
  assertEquals((await world.put(0, VIRTIO)).body.reason, "plugin-failed");
  assertEquals((await world.get(0)).mode, "emulated");
});
