/**
 * The life of a ring, message by message: it runs when its size, addresses, kick and enable have all come, in whatever
 * order, and stops at GET_VRING_BASE, at a reset, or when it is disabled. Front-ends differ in all of that.
 */
import { assertEquals } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import type { RequestName } from "../../shared/vhost_user/mod.ts";
import { VIRTIO_F_RING_PACKED } from "../../shared/layout/virtio.ts";
import { bits } from "../support/front_end.ts";
import {
  PROTOCOL_FEATURES,
  region,
  SIZE,
  TestSession,
  u64,
  untilSignalled,
  vringAddress,
  vringState,
  WITH_PROTOCOL_FEATURES,
} from "../support/test_session.ts";

/** Every order of some things. */
function orders<T>(things: T[]): T[][] {
  if (things.length < 2) return [things];
  return things.flatMap((first, i) => orders(things.toSpliced(i, 1)).map((rest) => [first, ...rest]));
}

// Starting -------------------------------------------------------------------------------------------------------

Deno.test("a ring starts when all has been said, whatever comes last, and not before", async () => {
  await using test = await TestSession.start();
  for (const order of orders(["num", "addr", "kick", "enable"] as const)) {
    const messages = test.messages(0);
    for (const [i, name] of order.entries()) {
      assertEquals(test.log, [], `nothing has started before ${name} of ${order}`);
      await messages[name]();
      assertEquals(test.running, i === 3 ? [0] : [], `after ${name} of ${order}`);
    }
    assertEquals(test.log, ["nic: start 0 at 0 kick"]);
    await test.send("VHOST_USER_RESET_DEVICE");
    test.log.length = 0;
  }
});

Deno.test("enabled before features are set, a ring is enabled", async () => {
  await using test = new TestSession();
  await test.enable(0, true);
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
  await test.send("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES));
  await test.setMemory(1);
  const { num, addr, kick } = test.messages(0);
  for (const message of [num, addr, kick]) await message();
  assertEquals(test.running, [0]);
});

Deno.test("without bit 30 there are no enable messages: rings count as enabled", async () => {
  await using test = await TestSession.start("passthrough", 0n);
  const { num, addr, kick } = test.messages(0);
  for (const message of [num, addr, kick]) await message();
  assertEquals([test.running, test.log], [[0], ["nic: start 0 at 0 kick"]]);
});

Deno.test("features without bit 30 enable the rings that were described before", async () => {
  await using test = await TestSession.start();
  const { num, addr, kick } = test.messages(0);
  for (const message of [num, addr, kick]) await message();
  assertEquals(test.running, []);
  await test.send("VHOST_USER_SET_FEATURES", u64(0n));
  assertEquals(test.running, [0]);
});

Deno.test("memory may come after its rings have been described", async () => {
  await using test = new TestSession();
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
  await test.send("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES));
  const { num, addr, kick, enable } = test.messages(0);
  for (const message of [num, addr, kick, enable]) await message();
  assertEquals(test.running, []);
  await test.setMemory(1);
  assertEquals([test.running, test.log.slice(-2)], [[0], ["nic: memory 1", "nic: start 0 at 0 kick"]]);
});

Deno.test("a split ring begins at its used index, whatever its front-end takes for its base", async () => {
  // After a reconnect Cloud Hypervisor says the avail index, and DPDK in server mode says 0.
  for (const base of [65_535, 0]) {
    await using test = await TestSession.start();
    const { num, addr, kick, enable } = test.messages(1);
    test.used.set(1, 65_530);
    await test.send("VHOST_USER_SET_VRING_BASE", vringState(1, base));
    for (const message of [num, addr, kick, enable]) await message();
    assertEquals(test.log, ["nic: start 1 at 65530 kick"]);
  }
});

Deno.test("a packed ring begins at its base", async () => {
  await using test = await TestSession.start("passthrough", WITH_PROTOCOL_FEATURES | bits(VIRTIO_F_RING_PACKED));
  const { num, addr, kick, enable } = test.messages(1);
  await test.send("VHOST_USER_SET_VRING_BASE", vringState(1, 0x8005_8005));
  for (const message of [num, addr, kick, enable]) await message();
  assertEquals(test.log, [`nic: start 1 at ${0x8005_8005} kick`]);
});

Deno.test("a ring that does not start is told of, and may be described anew", async () => {
  await using test = await TestSession.start();
  const { num, addr, kick } = test.messages(0);
  for (const message of [num, addr, kick]) await message();
  test.fail("queueStart", new DeviceRefusal("bad-ring", "the ring lies across two regions"));
  assertEquals(await test.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(0, 1)), 1n);
  assertEquals([test.running, test.connection.isClosed], [[], false]);
  await addr();
  assertEquals(test.running, [0]);
});

// Kick and call --------------------------------------------------------------------------------------------------

Deno.test("a ring without a kick descriptor starts all the same: it is polled", async () => {
  await using test = await TestSession.start();
  const { num, addr, enable } = test.messages(0);
  for (const message of [num, addr, enable]) await message();
  await test.send("VHOST_USER_SET_VRING_KICK", u64(0x100n));
  assertEquals([test.running, test.log], [[0], ["nic: start 0 at 0"]]);
});

Deno.test("another kick stops the ring, which goes on with it from there", async () => {
  await using test = await TestSession.start();
  await test.startRings(1);
  test.backend?.positions.set(1, 17);
  await test.messages(1).kick();
  assertEquals([test.running, test.log], [[1], ["nic: stop 1", "nic: start 1 at 17 kick call"]]);
});

Deno.test("a call descriptor may come before the ring runs, while it runs, and go again", async () => {
  await using test = await TestSession.start();
  const { num, addr, kick, call, enable } = test.messages(0);
  for (const message of [call, num, addr, kick, enable]) await message();
  assertEquals(test.log, ["nic: start 0 at 0 kick call"]);
  await call();
  await test.send("VHOST_USER_SET_VRING_CALL", u64(0x100n));
  assertEquals(test.log.slice(1), ["nic: call 0 true", "nic: call 0 false"], "the ring goes on");
  assertEquals(test.running, [0]);
});

Deno.test("a call descriptor of a ring that does not run waits for its start", async () => {
  await using test = await TestSession.start();
  await test.startRings(0);
  await test.enable(0, false);
  await test.send("VHOST_USER_SET_VRING_CALL", u64(0x100n));
  test.log.length = 0;
  await test.enable(0, true);
  assertEquals(test.log, ["nic: start 0 at 0 kick"], "without a call, since the last one was none");
});

// Stopping -------------------------------------------------------------------------------------------------------

Deno.test("GET_VRING_BASE stops a ring and says where; without another kick it does not start again", async () => {
  await using test = await TestSession.start();
  await test.startRings(0);
  test.backend?.positions.set(0, 42);
  assertEquals([await test.stopRing(0), test.running], [42, []]);
  await test.enable(0, true);
  await test.messages(0).addr();
  assertEquals(test.running, []);
  await test.messages(0).kick();
  assertEquals([test.running, test.log], [[0], ["nic: stop 0", "nic: start 0 at 42 kick call"]]);
});

Deno.test("the base of a ring that does not run is where it would begin, and asked for as often as one likes", async () => {
  await using test = await TestSession.start();
  assertEquals(await test.stopRing(3), 0);
  await test.send("VHOST_USER_SET_VRING_BASE", vringState(3, 7));
  assertEquals([await test.stopRing(3), await test.stopRing(3), test.log], [7, 7, []]);
});

Deno.test("a ring that is disabled waits, and goes on where it was: nothing in it is discarded", async () => {
  await using test = await TestSession.start();
  await test.startRings(0, 1);
  test.backend?.positions.set(1, 9);
  await test.enable(1, false);
  await test.enable(1, false);
  assertEquals([test.running, test.log], [[0], ["nic: stop 1"]]);
  await test.enable(1, true);
  await test.enable(1, true);
  assertEquals([test.running, test.log.slice(1)], [[0, 1], ["nic: start 1 at 9 kick call"]]);
});

Deno.test("a front-end may disable its rings and set them up anew without asking for their bases", async () => {
  await using test = await TestSession.start();
  await test.startRings(0);
  test.backend?.positions.set(0, 9);
  await test.enable(0, false);
  const { num, addr, kick, call, enable } = test.messages(0);
  await test.send("VHOST_USER_SET_VRING_BASE", vringState(0, 9));
  for (const message of [num, addr, call, kick, enable]) await message();
  assertEquals([test.running, test.log], [[0], ["nic: stop 0", "nic: start 0 at 9 kick call"]]);
});

Deno.test("what is said again of a ring that runs changes nothing; other addresses stop and start it", async () => {
  await using test = await TestSession.start();
  await test.startRings(0);
  const { num, addr, enable } = test.messages(0);
  for (const message of [num, addr, enable]) await message();
  assertEquals(test.log, []);
  const at = region(1).userAddress + 0x4000n;
  await test.send("VHOST_USER_SET_VRING_ADDR", vringAddress(0, at, at + 0x800n, at + 0x400n));
  assertEquals([test.running, test.log], [[0], ["nic: stop 0", "nic: start 0 at 0 kick call"]]);
});

// Resets ---------------------------------------------------------------------------------------------------------

const RESETS: [RequestName, Uint8Array<ArrayBuffer>?][] = [
  ["VHOST_USER_SET_STATUS", u64(0n)],
  ["VHOST_USER_RESET_DEVICE"],
  ["VHOST_USER_RESET_OWNER"],
];

for (const [name, payload] of RESETS) {
  Deno.test(`${name}: rings forget all but their bases; features and memory stay`, async () => {
    await using test = await TestSession.start();
    await test.startRings(0, 1);
    await test.send("VHOST_USER_SET_STATUS", u64(0xfn));
    test.backend?.positions.set(0, 42);
    await test.send(name, payload);
    assertEquals([test.running, test.log], [[], ["nic: stop 0", "nic: stop 1"]]);
    assertEquals([test.state.status, test.state.memoryRegions, test.state.features], [0, 1, "0x40000000"]);
    assertEquals(test.state.vrings.map(({ size, enabled }) => [size, enabled]), [[0, false], [0, false]]);
    // QEMU 7.2 resets first and asks afterwards.
    assertEquals(await test.stopRing(0), 42);
    test.log.length = 0;
    await test.enable(0, true);
    assertEquals(test.running, [], "nothing is left of it that could start");
    await test.startRings(0);
    assertEquals(test.running, [0]);
  });
}

Deno.test("a status is kept until the reset", async () => {
  await using test = await TestSession.start();
  await test.send("VHOST_USER_SET_STATUS", u64(7n));
  assertEquals((await test.ask("VHOST_USER_GET_STATUS"))?.getBigUint64(0, true), 7n);
  assertEquals(test.log, []);
});

// What is no ring ------------------------------------------------------------------------------------------------

/** What is said of ring 0, which runs, and why the connection ends. */
const BROKEN: [string, (test: TestSession) => Promise<void>, string][] = [
  [
    "a size of no entries",
    (test) => test.send("VHOST_USER_SET_VRING_NUM", vringState(1, 0)),
    "VHOST_USER_SET_VRING_NUM: size 0 of vring 1",
  ],
  [
    "a size beyond the specification's",
    (test) => test.send("VHOST_USER_SET_VRING_NUM", vringState(1, 65_536)),
    "VHOST_USER_SET_VRING_NUM: size 65536 of vring 1",
  ],
  [
    "another size while it runs",
    (test) => test.send("VHOST_USER_SET_VRING_NUM", vringState(0, 2 * SIZE)),
    "VHOST_USER_SET_VRING_NUM: vring 0 runs: its size is fixed",
  ],
  [
    "a base while it runs",
    (test) => test.send("VHOST_USER_SET_VRING_BASE", vringState(0, 5)),
    "VHOST_USER_SET_VRING_BASE: vring 0 runs: stop it before its base is set",
  ],
  [
    "a base that no 16-bit index has",
    (test) => test.send("VHOST_USER_SET_VRING_BASE", vringState(1, 65_536)),
    "VHOST_USER_SET_VRING_BASE: base 65536 of vring 1",
  ],
  [
    "a kick without its descriptor",
    (test) => test.send("VHOST_USER_SET_VRING_KICK", u64(0n)),
    "VHOST_USER_SET_VRING_KICK: vring 0: no descriptor came against its flag",
  ],
  [
    "a descriptor that is said not to come",
    (test) => test.send("VHOST_USER_SET_VRING_KICK", u64(0x100n), [test.eventFd()]),
    "VHOST_USER_SET_VRING_KICK: vring 0: a descriptor came against its flag",
  ],
  [
    "a file to wait for kicks on",
    (test) => test.send("VHOST_USER_SET_VRING_KICK", u64(0n), [test.memoryFile()]),
    "VHOST_USER_SET_VRING_KICK: vring 0: its kick is not an eventfd",
  ],
  [
    "an index with more in it",
    (test) => test.send("VHOST_USER_SET_VRING_CALL", u64(0x200n), [test.eventFd()]),
    "VHOST_USER_SET_VRING_CALL: 0x200 is not a vring index",
  ],
];

for (const [what, break_, reason] of BROKEN) {
  Deno.test(`${what} ends the connection, and no descriptor is left`, async () => {
    await using test = await TestSession.start();
    await test.startRings(0);
    await break_(test);
    assertEquals((await test.ended).startsWith(reason), true, await test.ended);
    assertEquals(test.log.at(-1)?.startsWith("nic: release"), true);
  });
}

Deno.test("a backend that does not stop a ring ends the connection, and no descriptor is left", async () => {
  for (const message of ["kick", "addr", "base"] as const) {
    await using test = await TestSession.start();
    await test.startRings(0);
    test.fail("queueStop", new DeviceRefusal("failed", "not now"));
    if (message === "kick") await test.messages(0).kick();
    else if (message === "addr") await test.send("VHOST_USER_SET_VRING_ADDR", vringAddress(0, 0n, 0n, 0n));
    else await test.stopRing(0);
    assertEquals((await test.ended).endsWith(": not now"), true, await test.ended);
  }
});

// Errors of the backend ------------------------------------------------------------------------------------------

Deno.test("a ring that has failed is shown with its reason, and its error descriptor is signalled", async () => {
  await using test = await TestSession.start();
  const error = test.eventFd();
  await test.send("VHOST_USER_SET_VRING_ERR", u64(1n), [error]);
  await test.startRings(0, 1);
  test.backend?.events.queueFailed(1, "a chain longer than the queue");
  assertEquals(test.state.vrings.find(({ index }) => index === 1)?.error, "a chain longer than the queue");
  await untilSignalled(error);
  test.backend?.events.queueFailed(9, "no such ring");
});

Deno.test("the error descriptor survives resets: QEMU sends it once", async () => {
  await using test = await TestSession.start();
  const error = test.eventFd();
  await test.send("VHOST_USER_SET_VRING_ERR", u64(1n), [error]);
  await test.send("VHOST_USER_RESET_DEVICE");
  await test.startRings(1);
  test.backend?.events.queueFailed(1, "a chain longer than the queue");
  await untilSignalled(error);
});
