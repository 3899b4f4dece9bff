/** The dirty log of a vhost-user session: who is told of it, when, and what ends it. */
import { assertEquals, assertRejects } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { VHOST_F_LOG_ALL } from "../../shared/vhost_user/mod.ts";
import { VIRTIO_F_VERSION_1 } from "../../shared/layout/virtio.ts";
import { loggedAddress } from "../support/guest_log.ts";
import { region, TestSession, u64, vringAddress, vringState, WITH_PROTOCOL_FEATURES } from "../support/test_session.ts";

const LOG_ALL = 1n << BigInt(VHOST_F_LOG_ALL);
const AT = region(1).userAddress;
const RING = [AT, AT + 0x800n, AT + 0x400n] as const;

/** A session whose queue pair runs. */
async function running(): Promise<TestSession> {
  const test = await TestSession.start();
  await test.startRings(1, 0);
  return test;
}

async function setLogBase(test: TestSession, size = 4096n, offset = 0n): Promise<number | undefined> {
  const before = test.connection.replies.length;
  await test.send("VHOST_USER_SET_LOG_BASE", u64(size, offset), [test.memoryFile()]);
  return test.connection.replies[before]?.[1].byteLength;
}

function setLogAll(test: TestSession, on: boolean): Promise<void> {
  return test.send("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES | (on ? LOG_ALL : 0n)));
}

Deno.test("the log is answered with nothing in it, and is on from LOG_ALL on; no ring stops for it", async () => {
  await using test = await running();
  assertEquals(await setLogBase(test, 4096n, 512n), 0);
  assertEquals([test.log, test.state.dirtyLog], [[], { bytes: 4096, on: false }]);
  await setLogAll(test, true);
  assertEquals([test.log, test.state.dirtyLog], [["nic: log into 4096 bytes at 512"], { bytes: 4096, on: true }]);
  await setLogAll(test, false);
  assertEquals([test.log.at(-1), test.state.dirtyLog], ["nic: log no more", { bytes: 4096, on: false }]);
  assertEquals(test.running, [1, 0]);
});

Deno.test("a log that comes while another one is on replaces it before it is answered", async () => {
  await using test = await running();
  await setLogBase(test);
  await setLogAll(test, true);
  assertEquals(await setLogBase(test, 8192n), 0);
  assertEquals(test.log.at(-1), "nic: log into 8192 bytes at 0");
});

Deno.test("a ring says where its used ring is logged while it runs, and when it starts; no ring stops for it", async () => {
  await using test = await running();
  await test.send("VHOST_USER_SET_VRING_ADDR", loggedAddress(0, RING, 0x5000n));
  await test.send("VHOST_USER_SET_VRING_ADDR", loggedAddress(0, RING, 0x5000n));
  // Ring 0 was at the same addresses before, so it goes on.
  assertEquals(test.log, ["nic: log 0 at 0x5000"]);
  await test.enable(0, false);
  await test.enable(0, true);
  assertEquals(test.log.at(-1), "nic: start 0 at 0 kick call logged at 0x5000");
  await test.send("VHOST_USER_SET_VRING_ADDR", vringAddress(0, ...RING));
  assertEquals(test.log.at(-1), "nic: log 0 at none");
});

Deno.test("whoever takes the rings over has the log before the first ring", async () => {
  await using test = await running();
  await setLogBase(test);
  await setLogAll(test, true);
  await test.session.switchTo("emulated");
  assertEquals(test.log.slice(-5), [
    "local: attach",
    "local: memory 1",
    "local: log into 4096 bytes at 0",
    "local: start 0 at 0 kick call",
    "local: start 1 at 0 kick call",
  ]);
});

Deno.test("a guest that is being moved is given no VF to drive, and one that drives its VF is not moved", async () => {
  await using test = await running();
  await setLogBase(test);
  await setLogAll(test, true);
  await assertRejects(() => test.session.switchTo("guest"), DeviceRefusal, "being moved");
  await setLogAll(test, false);
  await test.session.switchTo("guest");
  const reply = await test.acknowledged("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES | LOG_ALL));
  assertEquals([reply, test.connection.isClosed], [1n, false]);
  assertEquals(
    test.state.lastRefusal,
    "VHOST_USER_SET_FEATURES: its guest drives its VF itself: put it into emulated mode before it moves",
  );
});

Deno.test("other features that come with LOG_ALL are in force too", async () => {
  await using test = await TestSession.start();
  await test.send(
    "VHOST_USER_SET_FEATURES",
    u64(WITH_PROTOCOL_FEATURES | LOG_ALL | (1n << BigInt(VIRTIO_F_VERSION_1))),
  );
  assertEquals(test.state.features, `0x${(WITH_PROTOCOL_FEATURES | LOG_ALL | (1n << 32n)).toString(16)}`);
});

Deno.test("16 a log whose size or offset is no number of a file ends the session", async () => {
  for (const [size, offset] of [[0n, 0n], [1n << 63n, 1n << 63n], [4096n, (1n << 64n) - 4096n]] as const) {
    await using test = await running();
    await setLogBase(test, size, offset);
    assertEquals(
      await test.ended,
      `VHOST_USER_SET_LOG_BASE: a log of 0x${size.toString(16)} bytes at 0x${offset.toString(16)} is in no file`,
    );
  }
});

Deno.test("what the log is refused for is told", async () => {
  await using test = await running();
  await setLogBase(test);
  test.fail("logStart", new DeviceRefusal("log-too-small", "a dirty log of 4096 bytes is too small"));
  const reply = await test.acknowledged("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES | LOG_ALL));
  assertEquals([reply, test.state.dirtyLog?.on], [1n, false]);
});

const STOPS: Record<string, (test: TestSession) => Promise<void>> = {
  "GET_VRING_BASE": async (test) => {
    for (const index of [0, 1]) {
      assertEquals(test.pauses, 0);
      await test.send("VHOST_USER_GET_VRING_BASE", vringState(index, 0));
    }
  },
  "SET_VRING_ENABLE 0": async (test) => {
    for (const index of [0, 1]) {
      assertEquals(test.pauses, 0);
      await test.enable(index, false);
    }
  },
  // As QEMU 7.2 to 8.0 do, before they ask for the bases.
  "SET_STATUS 0": (test) => test.send("VHOST_USER_SET_STATUS", u64(0n)),
};

for (const [how, stop] of Object.entries(STOPS)) {
  Deno.test(`a guest that is being moved stands still when its last ring stops (${how}); one that is not is told of to nobody`, async () => {
    {
      await using test = await running();
      await setLogBase(test);
      await setLogAll(test, true);
      await stop(test);
      assertEquals([test.running, test.pauses], [[], 1]);
    }
    await using test = await running();
    await stop(test);
    assertEquals([test.running, test.pauses], [[], 0]);
  });
}
