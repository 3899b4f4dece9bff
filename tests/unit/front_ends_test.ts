/**
 * What lawful front-ends do, each in its own way: QEMU of several versions, DPDK, Cloud Hypervisor, crosvm, libkrun,
 * rust-vmm's and User-Mode Linux. A session takes it as it is meant.
 */
import { assertEquals } from "@std/assert";
import { createMemfd, writeMemoryFile } from "../../shared/os/mod.ts";
import * as V from "../../shared/layout/virtio.ts";
import {
  MEM_SLOTS_MAX,
  VHOST_USER_PROTOCOL_F_CONFIG,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_REPLY_ACK,
} from "../../shared/vhost_user/mod.ts";
import { FEATURES } from "../../services/vhost/negotiation.ts";
import { bits } from "../support/front_end.ts";
import {
  memoryTable,
  PROTOCOL_FEATURES,
  region,
  singleRegion,
  SIZE,
  TestSession,
  u64,
  vringAddress,
  vringState,
  WITH_PROTOCOL_FEATURES,
} from "../support/test_session.ts";

const config = (offset: number, bytes: number, ...data: number[]) =>
  new Uint8Array([...new Uint8Array(new Uint32Array([offset, bytes, 0]).buffer), ...data]);

/** Describes ring `index`, which lies in region `where`, but for its enable. */
async function describe(test: TestSession, index: number, where = 1): Promise<void> {
  const at = region(where).userAddress + BigInt((index % 4) * 0x2000);
  await test.send("VHOST_USER_SET_VRING_NUM", vringState(index, SIZE));
  await test.send("VHOST_USER_SET_VRING_ADDR", vringAddress(index, at, at + 0x800n, at + 0x400n));
  await test.send("VHOST_USER_SET_VRING_KICK", u64(BigInt(index)), [test.eventFd()]);
}

// Features -------------------------------------------------------------------------------------------------------

Deno.test("features hold together by themselves: a front-end may hand them to its guest as they are", () => {
  const has = (bit: number) => (FEATURES >> BigInt(bit)) & 1n;
  // VIRTIO 1.2 5.1.3.1: each of these needs the control queue.
  for (
    const bit of [
      V.VIRTIO_NET_F_CTRL_RX,
      V.VIRTIO_NET_F_CTRL_VLAN,
      V.VIRTIO_NET_F_GUEST_ANNOUNCE,
      V.VIRTIO_NET_F_MQ,
      V.VIRTIO_NET_F_CTRL_MAC_ADDR,
    ]
  ) assertEquals(has(bit) <= has(V.VIRTIO_NET_F_CTRL_VQ), true, `feature ${bit}`);
  for (const bit of [V.VIRTIO_NET_F_MAC, V.VIRTIO_NET_F_STATUS, V.VIRTIO_NET_F_MTU]) assertEquals(has(bit), 1n);
});

Deno.test("UML asks for an acknowledgement of the message that agrees on acknowledgements", async () => {
  await using test = new TestSession();
  assertEquals(await test.acknowledged("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES)), 0n);
  await using without = new TestSession();
  const features = PROTOCOL_FEATURES & ~bits(VHOST_USER_PROTOCOL_F_REPLY_ACK);
  assertEquals(await without.acknowledged("VHOST_USER_SET_PROTOCOL_FEATURES", u64(features)), undefined);
});

Deno.test("GET_QUEUE_NUM and GET_CONFIG are answered before anything is agreed on", async () => {
  await using test = new TestSession();
  assertEquals((await test.ask("VHOST_USER_GET_QUEUE_NUM"))?.getBigUint64(0, true), 16n);
  assertEquals((await test.ask("VHOST_USER_GET_CONFIG", config(0, 6, 0, 0, 0, 0, 0, 0)))?.byteLength, 0);
  assertEquals(test.connection.isClosed, false);
});

Deno.test("without bit 30 all rings are enabled once; messages change that, and later features do not", async () => {
  await using test = new TestSession();
  await test.setMemory(1);
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
  await test.send("VHOST_USER_SET_FEATURES", u64(0n));
  for (const index of [0, 1]) await describe(test, index);
  assertEquals(test.running, [0, 1]);
  await test.enable(0, false);
  assertEquals(test.running, [1], "an enable message works");
  await test.send("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES));
  assertEquals(test.running, [1], "features with bit 30 disable nothing");
  await test.enable(0, true);
  assertEquals(test.running, [0, 1]);
});

// Memory ---------------------------------------------------------------------------------------------------------

Deno.test("QEMU 5.1 leaves the last four bytes of a region out: the upper half of its offset is 0", async () => {
  await using test = await TestSession.start();
  const short = singleRegion(region(2)).slice(0, 36);
  assertEquals(await test.acknowledged("VHOST_USER_ADD_MEM_REG", short, [test.memoryFile()]), 0n);
  assertEquals(test.state.memoryRegions, 2);
  assertEquals(await test.acknowledged("VHOST_USER_REM_MEM_REG", short), 0n);
  assertEquals([test.log, test.state.memoryRegions], [["nic: add 2", "nic: remove 2"], 1]);
});

Deno.test("rust-vmm's front-end sends as many regions in one table as there are slots", async () => {
  await using test = await TestSession.start();
  const numbers = Array.from({ length: MEM_SLOTS_MAX }, (_, i) => i + 1);
  const files = numbers.map(() => test.memoryFile());
  assertEquals(await test.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable(numbers.map(region)), files), 0n);
  assertEquals(test.state.memoryRegions, MEM_SLOTS_MAX);
});

Deno.test("UML's table has room for more regions than it says there are", async () => {
  await using test = await TestSession.start();
  const table = memoryTable([region(1), region(2)], 1);
  assertEquals(await test.acknowledged("VHOST_USER_SET_MEM_TABLE", table, [test.memoryFile()]), 0n);
  assertEquals(test.state.memoryRegions, 1);
});

Deno.test("a ring that is announced before its region waits for it", async () => {
  await using test = await TestSession.start();
  await describe(test, 0, 2);
  assertEquals(await test.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(0, 1)), 0n);
  assertEquals(test.running, []);
  await test.send("VHOST_USER_ADD_MEM_REG", singleRegion(region(2)), [test.memoryFile()]);
  assertEquals([test.running, test.state.vrings[0]?.error], [[0], undefined]);
});

Deno.test("a ring whose region goes stops, and goes on without an error when it is there again", async () => {
  await using test = await TestSession.start();
  await test.send("VHOST_USER_ADD_MEM_REG", singleRegion(region(2)), [test.memoryFile()]);
  await describe(test, 0, 2);
  await describe(test, 1);
  for (const index of [0, 1]) await test.enable(index, true);
  test.log.length = 0;
  await test.send("VHOST_USER_REM_MEM_REG", singleRegion(region(2)));
  assertEquals([test.running, test.log], [[1], ["nic: stop 0", "nic: remove 2"]]);
  await test.send("VHOST_USER_ADD_MEM_REG", singleRegion(region(2)), [test.memoryFile()]);
  assertEquals([test.running, test.state.vrings.map(({ error }) => error)], [[0, 1], [undefined, undefined]]);
});

Deno.test("a new table stops the rings that it moves, and those alone", async () => {
  await using test = await TestSession.start();
  await describe(test, 0);
  await test.enable(0, true);
  test.log.length = 0;
  await test.setMemory(1, 2);
  assertEquals(test.log, ["nic: memory 1,2"], "the ring is where it was");
  await test.setMemory(2);
  assertEquals([test.running, test.log.slice(1)], [[], ["nic: stop 0", "nic: memory 2"]]);
  await test.setMemory(1);
  assertEquals(test.running, [0]);
});

// Rings ----------------------------------------------------------------------------------------------------------

Deno.test("UML says base 0 of packed rings, whose wrap counters begin at 1; of others 0 is 0", async () => {
  const packed = WITH_PROTOCOL_FEATURES | bits(V.VIRTIO_F_RING_PACKED);
  for (const [flags, starts] of [[0, 0x8000_8000], [0x80, 0x8000_8000], [0x8080, 0], [0x8000, 0]] as const) {
    await using test = await TestSession.start("passthrough", packed);
    const file = createMemfd("ringfabric-test", 0x10000);
    writeMemoryFile(file.number, V.VIRTQ_PACKED_DESC_FLAGS, new Uint8Array(new Uint16Array([flags]).buffer));
    await test.send("VHOST_USER_SET_MEM_TABLE", memoryTable([region(1)]), [file]);
    file.close();
    test.log.length = 0;
    await test.send("VHOST_USER_SET_VRING_BASE", vringState(0, 0));
    await describe(test, 0);
    await test.enable(0, true);
    assertEquals(test.log, [`nic: start 0 at ${starts} kick`], `first descriptor with flags 0x${flags.toString(16)}`);
  }
});

Deno.test("a front-end that hands on the control queue says on it how many pairs it uses", async () => {
  const features = WITH_PROTOCOL_FEATURES | bits(V.VIRTIO_NET_F_CTRL_VQ, V.VIRTIO_NET_F_MQ);
  await using test = await TestSession.start("passthrough", features);
  for (const index of [0, 1, 2, 3, 32]) {
    await describe(test, index);
    await test.enable(index, true);
  }
  assertEquals(test.running, [0, 1, 3, 32], "it may transmit on all, and receives on one pair until it says more");
  assertEquals(test.log.filter((line) => line.includes("start 32")), [], "the control queue is no ring of the NIC's");
});

Deno.test("without MQ the control queue is the third ring", async () => {
  const features = WITH_PROTOCOL_FEATURES | bits(V.VIRTIO_NET_F_CTRL_VQ);
  await using test = await TestSession.start("passthrough", features);
  for (const index of [0, 1, 2]) {
    await describe(test, index);
    await test.enable(index, true);
  }
  assertEquals([test.running, test.log.length], [[0, 1, 2], 2]);
  assertEquals(await test.stopRing(2), 0);
  await test.session.switchTo("emulated");
  assertEquals(test.log.filter((line) => line.startsWith("local: start")).length, 2);
});

// The device beside its rings -----------------------------------------------------------------------------------

Deno.test("the configuration space has the port's address, link, pairs and MTU", async () => {
  await using test = await TestSession.start();
  const read = async (offset: number, bytes: number) => {
    const answer = await test.ask("VHOST_USER_GET_CONFIG", config(offset, bytes, ...new Array(bytes).fill(0)));
    return [...new Uint8Array(answer?.buffer ?? new ArrayBuffer(0))].slice(12);
  };
  assertEquals(await read(0, 12), [2, 0, 0, 0, 0, 7, 1, 0, 16, 0, 0xdc, 5]);
  assertEquals(await read(5, 1), [7]);
  assertEquals(await read(250, 6), [0, 0, 0, 0, 0, 0]);
  assertEquals(await read(250, 7), [], "beyond its end there is nothing");
  test.link = { mac: "02:00:00:00:00:08", up: false, mtu: 9000 };
  assertEquals(await read(0, 12), [2, 0, 0, 0, 0, 8, 0, 0, 16, 0, 0x28, 0x23]);
  test.link = { mac: "02:00:00:00:00:08", up: true, mtu: 9000 };
  assertEquals(await read(6, 2), [1, 0], "a guest that has not said that it can announce itself is not asked to");
  const features = bits(V.VIRTIO_NET_F_GUEST_ANNOUNCE, V.VIRTIO_NET_F_CTRL_VQ, V.VIRTIO_NET_F_MTU);
  await test.send("VHOST_USER_SET_FEATURES", u64(WITH_PROTOCOL_FEATURES | features));
  test.link = { mac: "02:00:00:00:00:08", up: false, mtu: 1500 };
  test.link = { mac: "02:00:00:00:00:08", up: true, mtu: 1500 };
  assertEquals(await read(6, 2), [3, 0], "a guest whose link comes back is asked to announce itself");
  assertEquals(await read(10, 2), [0x28, 0x23], "the MTU of a driver that has read it stays");
  await test.send("VHOST_USER_RESET_DEVICE");
  assertEquals(await read(10, 2), [0xdc, 5], "the next driver's is the one that is in force");
});

Deno.test("Cloud Hypervisor keeps the control queue and passes its feature on: every transmit ring is served", async () => {
  await using test = await TestSession.start(
    "passthrough",
    WITH_PROTOCOL_FEATURES | bits(V.VIRTIO_NET_F_CTRL_VQ, V.VIRTIO_NET_F_MQ),
  );
  await test.startRings(0, 1, 2, 3);
  assertEquals(test.running, [0, 1, 3]);
  for (const index of [0, 1, 2, 3]) await test.stopRing(index);
  await test.startRings(0, 1, 2, 3);
  assertEquals(test.running, [0, 1, 3], "and after a stop as well");
});

Deno.test("GET_QUEUE_NUM counts pairs, and virtqueues for those that pass the configuration space on", async () => {
  await using test = new TestSession();
  const number = async () => (await test.ask("VHOST_USER_GET_QUEUE_NUM"))?.getBigUint64(0, true);
  assertEquals(await number(), 16n);
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(bits(VHOST_USER_PROTOCOL_F_MQ)));
  assertEquals(await number(), 16n);
  const passesOn = bits(VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_CONFIG);
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(passesOn));
  assertEquals(await number(), 33n);
});

Deno.test("a group's address, or none, is refused before anyone is asked", async () => {
  await using test = await TestSession.start();
  for (const mac of [[1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0], [255, 255, 255, 255, 255, 255]]) {
    assertEquals(await test.acknowledged("VHOST_USER_SET_CONFIG", config(0, 6, ...mac)), 1n);
  }
  assertEquals(await test.acknowledged("VHOST_USER_SET_CONFIG", config(0, 6, 2, 0, 0, 0, 0, 7)), 0n, "its own");
  assertEquals(test.wishes, []);
});

Deno.test("an announcement that the NIC cannot make ends no session", async () => {
  await using test = await TestSession.start();
  test.refusal = "the NIC is away";
  await test.send("VHOST_USER_SEND_RARP", new Uint8Array([2, 0, 0, 0, 0, 9, 0, 0]));
  assertEquals([test.connection.isClosed, test.state.lastRefusal], [false, "VHOST_USER_SEND_RARP: the NIC is away"]);
});

Deno.test("what is no socket cannot be a back-channel", async () => {
  await using test = await TestSession.start();
  await test.send("VHOST_USER_SET_BACKEND_REQ_FD", new Uint8Array(), [test.eventFd()]);
  assertEquals(await test.ended, "VHOST_USER_SET_BACKEND_REQ_FD: its descriptor is not a Unix socket");
});

Deno.test("a driver without CTRL_MAC_ADDR writes its address byte by byte, and is told if it may not", async () => {
  await using test = await TestSession.start();
  for (let i = 0; i < 6; i++) {
    assertEquals(await test.acknowledged("VHOST_USER_SET_CONFIG", config(i, 1, i === 5 ? 9 : 2)), 0n);
  }
  assertEquals(test.wishes, [{ mac: "02:02:02:02:02:09" }]);
  test.refusal = "the PF has set another";
  assertEquals(await test.acknowledged("VHOST_USER_SET_CONFIG", config(0, 6, 2, 0, 0, 0, 0, 1)), 1n);
  await test.send("VHOST_USER_SET_CONFIG", config(0, 6, 2, 0, 0, 0, 0, 1));
  assertEquals([test.connection.isClosed, test.state.lastRefusal], [
    false,
    "VHOST_USER_SET_CONFIG: the PF has set another",
  ]);
  assertEquals(await test.acknowledged("VHOST_USER_SET_CONFIG", config(8, 2, 1, 0)), 1n, "queue pairs are not its");
});

Deno.test("an announcement goes out for the address that the front-end names", async () => {
  await using test = await TestSession.start();
  await test.send("VHOST_USER_SEND_RARP", new Uint8Array([2, 0, 0, 0, 0, 9, 0, 0]));
  assertEquals(test.announced, ["02:00:00:00:00:09"]);
});

Deno.test("an MTU that no frame can have is refused, others are taken", async () => {
  await using test = await TestSession.start();
  assertEquals(await test.acknowledged("VHOST_USER_NET_SET_MTU", u64(9000n)), 0n);
  assertEquals(await test.acknowledged("VHOST_USER_NET_SET_MTU", u64(65_519n)), 1n);
});

Deno.test("what a driver wanted to receive goes with it", async () => {
  await using test = await TestSession.start();
  await test.send("VHOST_USER_SET_CONFIG", config(0, 6, 2, 0, 0, 0, 0, 1));
  test.wishes.length = 0;
  await test.send("VHOST_USER_RESET_DEVICE");
  assertEquals([test.wishes, test.forgotten], [[], 1]);
  await test.send("VHOST_USER_RESET_DEVICE");
  assertEquals(test.forgotten, 1, "once");
});
