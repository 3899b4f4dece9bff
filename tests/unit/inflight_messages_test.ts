/** GET_INFLIGHT_FD and SET_INFLIGHT_FD: what is made, what is taken, and what is refused by name (hostile.md 17). */
import { assertEquals, assertMatch } from "@std/assert";
import {
  INFLIGHT_DESC_NUM,
  INFLIGHT_PACKED_POSITION,
  INFLIGHT_SPLIT_HEADER_BYTES,
  INFLIGHT_VERSION,
} from "../../shared/layout/inflight.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { VIRTIO_F_RING_PACKED } from "../../shared/layout/virtio.ts";
import { createEventFd, createMemfd, type Fd, readMemoryFile, writeMemoryFile } from "../../shared/os/mod.ts";
import { requestName, REQUESTS, VHOST_USER_F_PROTOCOL_FEATURES } from "../../shared/vhost_user/mod.ts";
import { Inflight, makeInflight } from "../../services/vhost/inflight.ts";
import { bits } from "../support/front_end.ts";
import { inflightPayload, WITH_INFLIGHT } from "../support/inflight_front_end.ts";
import { PROTOCOL_FEATURES, TestSession, u64, WITH_PROTOCOL_FEATURES } from "../support/test_session.ts";

const PACKED = bits(VHOST_USER_F_PROTOCOL_FEATURES, VIRTIO_F_RING_PACKED);
/** IOVA of inflight memory, in 4 GiB, as the test's backend names regions. */
const WHERE = 1n << 30n;

async function started(features = WITH_PROTOCOL_FEATURES): Promise<TestSession> {
  const test = await TestSession.start("passthrough", features);
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(WITH_INFLIGHT));
  return test;
}

/** Bytes that queues of 64 take, in whole pages. */
const bytesOf = (queues: number, entry: number, header: number) =>
  Math.ceil(queues * Math.ceil((header + 64 * entry) / 64) * 64 / 4096) * 4096;
const SPLIT_BYTES = bytesOf(2, 16, 16);

function contents(fd: Fd, bytes: number): DataView {
  const read = new Uint8Array(bytes);
  assertEquals(readMemoryFile(fd.number, 0, read), true);
  return new DataView(read.buffer);
}

for (
  const [format, features, size] of [["split", WITH_PROTOCOL_FEATURES, SPLIT_BYTES], [
    "packed",
    PACKED,
    bytesOf(2, 32, 32),
  ]] as const
) {
  for (const bytes of [24, 20]) {
    Deno.test(`memory is made for ${format} rings, in which nothing has run yet (${bytes} bytes)`, async () => {
      await using test = await started(features);
      const answer = await test.ask("VHOST_USER_GET_INFLIGHT_FD", inflightPayload({ bytes }));
      assertEquals([answer?.byteLength, answer?.getBigUint64(0, true)], [bytes, BigInt(size)]);
      assertEquals([answer?.getUint16(16, true), answer?.getUint16(18, true)], [2, 64]);
      const [fd] = test.connection.fds;
      if (!fd) throw new Error("no descriptor came");
      const view = contents(fd, size);
      assertEquals([view.getUint16(INFLIGHT_VERSION, true), view.getUint16(INFLIGHT_DESC_NUM, true)], [0, 64]);
      if (format === "packed") assertEquals(view.getBigUint64(INFLIGHT_PACKED_POSITION, true), 0x0101_0000_0000n);
    });
  }
}

Deno.test("memory that came is a region more for whoever serves the rings, with every table and every backend", async () => {
  await using test = await started();
  const file = () => createMemfd("inflight", SPLIT_BYTES);
  for (const kept of [[], [WHERE]]) {
    using fd = file();
    test.log.length = 0;
    await test.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload({ mmapSize: BigInt(SPLIT_BYTES) }), [fd]);
    assertEquals(test.log, [...kept.map((at) => `nic: remove ${at}`), `nic: add ${WHERE}`]);
  }
  test.log.length = 0;
  await test.setMemory(1, 2);
  assertEquals(test.log, [`nic: memory 1,2,${WHERE}`]);
  const { num, base, addr, kick, call, enable } = test.messages(1);
  for (const message of [num, base, addr, call, kick, enable]) await message();
  assertEquals(test.log.at(-1), "nic: start 1 at 0 kick call inflight");
  test.log.length = 0;
  await test.session.switchTo("emulated");
  assertEquals(test.log.filter((line) => line.startsWith("local: ")), [
    "local: attach",
    `local: memory 1,2,${WHERE}`,
    "local: start 1 at 0 kick call inflight",
  ]);
});

Deno.test("memory that the NIC refuses changes nothing: what was kept before stays", async () => {
  await using test = await started();
  const payload = inflightPayload({ mmapSize: BigInt(SPLIT_BYTES) });
  using first = createMemfd("inflight", SPLIT_BYTES);
  using second = createMemfd("inflight", SPLIT_BYTES);
  assertEquals(await test.acknowledged("VHOST_USER_SET_INFLIGHT_FD", payload, [first]), 0n);
  test.fail("dmaMap", new DeviceRefusal("memory-limit", "vf 3 has its memory: 2048 MiB"));
  test.log.length = 0;
  assertEquals(await test.acknowledged("VHOST_USER_SET_INFLIGHT_FD", payload, [second]), 1n);
  const tried = [`nic: remove ${WHERE}`, `nic: add ${WHERE}`, `nic: add ${WHERE}`];
  assertEquals(test.log, tried, "the second one is there no more");
  test.log.length = 0;
  await test.setMemory(1);
  assertEquals(test.log, [`nic: memory 1,${WHERE}`]);
});

Deno.test("a ring that has no part of the memory runs without", async () => {
  await using test = await started();
  using fd = createMemfd("inflight", SPLIT_BYTES);
  const payload = inflightPayload({ mmapSize: BigInt(SPLIT_BYTES), queues: 1 });
  await test.send("VHOST_USER_SET_INFLIGHT_FD", payload, [fd]);
  const { num, base, addr, kick, call, enable } = test.messages(1);
  for (const message of [num, base, addr, call, kick, enable]) await message();
  assertEquals(test.log.at(-1), "nic: start 1 at 0 kick call");
});

const whole = { mmapSize: BigInt(SPLIT_BYTES) };
/** What is wrong with it, and what is said. */
const REFUSED: [string, Parameters<typeof inflightPayload>[0], RegExp][] = [
  ["no queue", { ...whole, queues: 0 }, /of 0 queues: there may be 1–33/],
  ["more queues than a device has", { ...whole, queues: 34 }, /of 34 queues/],
  ["queues without entries", { ...whole, queueSize: 0 }, /of 0 entries/],
  ["queues that no ring is as long as", { ...whole, queueSize: 32_769 }, /of 32769 entries: they have 1–32768/],
  ["a size that does not hold them", { mmapSize: 4095n }, /of 4095 bytes: 2 split queues of 64 take 4096/],
  ["an offset beyond any file", { ...whole, mmapOffset: 1n << 63n }, /beyond any file/],
  ["a size that wraps", { mmapSize: (1n << 64n) - 1n }, /beyond any file/],
];

for (const [what, said, reason] of REFUSED) {
  Deno.test(`17 inflight memory with ${what} ends the connection, and leaves nothing`, async () => {
    await using test = await started();
    using fd = createMemfd("inflight", SPLIT_BYTES);
    await test.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload(said), [fd]);
    assertMatch(await test.ended, reason);
    assertEquals(test.log.filter((line) => line.includes("add")), []);
  });
}

Deno.test("17 memory without a descriptor, or of a file that is too short, ends the connection", async () => {
  await using without = await started();
  await without.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload(whole));
  assertMatch(await without.ended, /without a descriptor/);
  await using short = await started();
  using fd = createMemfd("inflight", 16);
  await short.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload(whole), [fd]);
  assertMatch(await short.ended, /it cannot be read/);
});

Deno.test("17 memory that is no file in memory is not read: a file on FUSE could be waited for without end", async () => {
  await using test = await started();
  using fd = createEventFd();
  await test.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload(whole), [fd]);
  assertMatch(await test.ended, /whose descriptor is not a file in memory/);
});

Deno.test("17 descriptors belong to SET_INFLIGHT_FD alone, and no more than one", () => {
  const { VHOST_USER_GET_INFLIGHT_FD: get, VHOST_USER_SET_INFLIGHT_FD: set } = REQUESTS;
  assertEquals([requestName(31), requestName(32)], ["VHOST_USER_GET_INFLIGHT_FD", "VHOST_USER_SET_INFLIGHT_FD"]);
  assertEquals([get.fdsMax, set.fdsMax], [0, 1]);
});

Deno.test("what another back-end left in flight, or wrote in another version, is refused by name", async () => {
  for (
    const [at, value, reason] of [
      [INFLIGHT_SPLIT_HEADER_BYTES + 3 * 16, 1, /another back-end left descriptor 3 of queue 0 in flight/],
      [INFLIGHT_VERSION, 2, /its version is 2: this back-end knows 1/],
    ] as const
  ) {
    await using test = await started();
    using fd = createMemfd("inflight", SPLIT_BYTES);
    assertEquals(writeMemoryFile(fd.number, at, Uint8Array.of(value)), true);
    await test.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload(whole), [fd]);
    assertMatch(await test.ended, reason);
  }
});

Deno.test("it needs its protocol feature, the features first, and rings that do not run", async () => {
  await using unasked = await TestSession.start();
  await unasked.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
  await unasked.send("VHOST_USER_GET_INFLIGHT_FD", inflightPayload());
  assertMatch(await unasked.ended, /before its protocol feature was negotiated/);
  await using early = new TestSession();
  await early.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(WITH_INFLIGHT));
  await early.send("VHOST_USER_GET_INFLIGHT_FD", inflightPayload());
  assertMatch(await early.ended, /the features come first/);
  await using running = await started();
  await running.startRings(0);
  using fd = createMemfd("inflight", SPLIT_BYTES);
  await running.send("VHOST_USER_SET_INFLIGHT_FD", inflightPayload(whole), [fd]);
  assertMatch(await running.ended, /rings run/);
});

Deno.test("17 what is written, or looked through, is paid for by its size, a queue's part at a time", async () => {
  const costs = async (queues: number, queueSize: number) => {
    const paid: number[] = [];
    const pay = (cost: number) => Promise.resolve(void paid.push(cost));
    const payload = (mmapSize = 0n) => new DataView(inflightPayload({ mmapSize, queues, queueSize }).buffer);
    const { fd, answer } = await makeInflight(payload(), true, pay);
    using file = fd;
    const made = paid.splice(0);
    await Inflight.of(payload(new DataView(answer.buffer).getBigUint64(0, true)), file, true).unfit(pay);
    return [made, paid];
  };
  const each = (queues: number, cost: number) => new Array<number>(queues).fill(cost);
  assertEquals(await costs(2, 256), [each(2, 1), each(2, 1)]);
  assertEquals(await costs(33, 32_768), [each(33, 33), each(33, 33)]);
});
