/** A port's Wasm module: what it does with a kernel that has no room, frames that cannot be, and a NIC that lies. */
import { assert, assertEquals } from "@std/assert";
import * as N from "../../shared/layout/netdev.ts";
import * as V from "../../shared/layout/virtio.ts";
import { TestPort } from "../support/netdev_module.ts";

const EAGAIN = -11;

/** The first of a list, which has one. */
function first<T>(list: readonly T[]): T {
  const [one] = list;
  if (one === undefined) throw new Error("there is none");
  return one;
}

Deno.test("frames go both ways, and every buffer comes back", async () => {
  const port = await TestPort.start();
  assertEquals(port.offered.length, N.ND_QUEUE_SIZE);
  port.module.wake();
  // More than there are descriptors, several times.
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 64; i++) port.deliver(port.offered[i] as number, 12 + 60);
    const submissions = port.submissions();
    const writes = submissions.filter(({ isRead }) => !isRead);
    const reads = submissions.filter(({ isRead }) => isRead);
    assertEquals([writes.length, new Set(writes.map(({ id }) => id)).size], [64, 64]);
    assert(reads.length > 0);
    const done = submissions.map((one) => [one, one.isRead ? 12 + 100 : one.bytes] as [typeof one, number]);
    assert(port.complete(...done) & N.STATUS_WORK);
    const taken = port.taken();
    assertEquals(taken.map(({ bytes }) => bytes), reads.map(() => 112));
    port.sent(...taken.map(({ id }) => id));
    assertEquals(new Set(port.offered).size, N.ND_QUEUE_SIZE);
  }
  const { out_frames, out_bytes, in_frames = 0, in_bytes } = port.counters;
  assertEquals([out_frames, out_bytes, in_bytes], [1280, 1280 * 60, in_frames * 100]);
  assertEquals(port.fault, N.FAULT_NONE);
});

Deno.test("what the kernel does not take is dropped, counted by its reason, and its buffer is the NIC's again", async () => {
  const port = await TestPort.start();
  const reasons = new Map([[11, "out_busy"], [105, "out_busy"], [12, "out_busy"], [5, "out_down"], [100, "out_down"], [
    90,
    "out_too_long",
  ], [22, "out_refused"]]);
  for (const errno of reasons.keys()) {
    port.deliver(port.offered[0] as number, 12 + 60);
    const submissions = port.submissions();
    assertEquals(submissions.map(({ isRead }) => isRead), [false, true]);
    port.complete(...submissions.map((one) => [one, one.isRead ? EAGAIN : -errno] as [typeof one, number]));
  }
  assertEquals(port.counters, { out_busy: 3, out_down: 2, out_too_long: 1, out_refused: 1 });
  assertEquals(new Set(port.offered).size, N.ND_QUEUE_SIZE);
  // One that has no frame in it is not handed to the kernel at all.
  port.deliver(port.offered[0] as number, 12 + 13);
  assertEquals(port.submissions().length, 0);
  assertEquals(port.counters.out_runt, 1);
});

Deno.test("a file that is gone ends the port; what the NIC still hands over is counted as lost", async () => {
  const port = await TestPort.start();
  port.module.wake();
  const read = first(port.submissions());
  assert(port.complete([read, -77]) & N.STATUS_FAULT);
  assertEquals(port.fault, N.FAULT_FILE_GONE);
  for (let i = 0; i < 5; i++) port.deliver(port.offered[i] as number, 72);
  port.module.abandon();
  assertEquals(port.counters, { out_down: 5 });
});

Deno.test("a NIC that uses what it does not have, or writes more than there is room for, ends the port", async () => {
  const lies: ((port: TestPort) => void)[] = [
    (port) => port.deliver(N.ND_QUEUE_SIZE, 72),
    (port) => port.deliver(0xffffffff, 72),
    (port) => port.deliver(3, N.ND_BUFFER_ROOM + 1),
    (port) => {
      port.deliver(3, 72);
      port.deliver(3, 72);
    },
    (port) => port.sent(0),
    (port) => port.view.setUint16(N.ND_TX_USED + 2, 0x8000, true),
  ];
  for (const [i, lie] of lies.entries()) {
    const port = await TestPort.start();
    lie(port);
    port.submissions();
    assert(port.module.settle() & N.STATUS_FAULT, `lie ${i}`);
    assertEquals(port.fault, N.FAULT_DEVICE, `lie ${i}`);
  }
});

Deno.test("reads: as many as bring something, none without a descriptor, none once it is to be quiet", async () => {
  const port = await TestPort.start();
  port.module.wake();
  const counts = [];
  // The NIC sends nothing of it.
  for (let i = 0; i < 12; i++) {
    const reads = port.submissions();
    counts.push(reads.length);
    port.complete(...reads.map((read) => [read, 12 + 60] as [typeof read, number]));
  }
  assertEquals(counts.slice(0, 7), [1, 2, 4, 8, 16, 32, 64]);
  assertEquals(counts.reduce((sum, n) => sum + n, 0), N.ND_QUEUE_SIZE);
  assertEquals(port.module.mayRead(), 0);
  assertEquals(port.module.arm(), 0);
  const taken = port.taken();
  port.sent(...taken.slice(0, 10).map(({ id }) => id));
  assertEquals(port.module.arm(), 1, "it waits for descriptors");
  const reads = port.submissions();
  assertEquals(reads.length, 10);
  port.complete(...reads.map((read, i) => [read, i < 3 ? 12 + 60 : EAGAIN] as [typeof read, number]));
  assertEquals(port.submissions().length, 0, "there was nothing more");
  port.module.wake();
  assertEquals(port.submissions().length, 3);
  port.request(N.REQUEST_QUIET);
  port.module.wake();
  assertEquals(port.submissions().length, 0);
});

Deno.test("frames of a packet socket: their tag goes back between the addresses and the type", async () => {
  const port = await TestPort.start(true);
  port.module.wake();
  const read = first(port.submissions());
  const { view } = port;
  // struct msghdr: vectors at 16, control data at 32.
  const vectors = Number(view.getBigUint64(read.at + N.MSGHDR_VECTORS, true));
  const header = Number(view.getBigUint64(vectors, true));
  const frame = Number(view.getBigUint64(vectors + 16, true));
  assertEquals([view.getBigUint64(vectors + 8, true), frame - header], [10n, 12]);
  // A partial checksum at 34 + 16, to be cut after 54 bytes of headers.
  new Uint8Array(view.buffer, header, 10).set([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0]);
  new Uint8Array(view.buffer, frame, 60).set(Array.from({ length: 60 }, (_, i) => i));
  const control = Number(view.getBigUint64(read.at + N.MSGHDR_CONTROL, true));
  view.setBigUint64(control, 36n, true);
  view.setUint32(control + 8, 263, true);
  view.setUint32(control + 12, 8, true);
  // TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID; tag 0x2005 of 802.1ad.
  view.setUint32(control + 16, 0x50, true);
  view.setUint16(control + 32, 0x2005, true);
  view.setUint16(control + 34, 0x88a8, true);
  port.complete([read, 10 + 60]);
  const got = first(port.taken());
  assertEquals(got.bytes, 12 + 64);
  const bytes = [...new Uint8Array(view.buffer, got.at, got.bytes)];
  assertEquals(bytes.slice(0, 10), [1, 1, 58, 0, 0xb4, 5, 38, 0, 16, 0]);
  const expected = [...Array(12).keys(), 0x88, 0xa8, 0x20, 0x05, ...Array.from({ length: 48 }, (_, i) => i + 12)];
  assertEquals(bytes.slice(12), expected);
  // The next frame into the same buffer has none.
  port.sent(got.id);
  assertEquals(port.counters, { in_frames: 1, in_bytes: 64 });
});

Deno.test("frames that are cut off or too short are counted and not passed on", async () => {
  const port = await TestPort.start(true);
  port.module.wake();
  const read = first(port.submissions());
  port.view.setUint32(read.at + N.MSGHDR_FLAGS, 0x20, true);
  port.complete([read, 10 + 60]);
  port.complete([first(port.submissions()), 10 + 13]);
  assertEquals(port.taken(), []);
  assertEquals(port.counters, { in_cut_off: 1, in_runt: 1 });
});

Deno.test("the NIC is told of room when it asked for that, once for each time", async () => {
  const port = await TestPort.start();
  const { view } = port;
  const event = N.ND_RX_USED + V.VIRTQ_USED_RING + N.ND_QUEUE_SIZE * V.VIRTQ_USED_ELEM_BYTES;
  /** Writes `count` frames; answers whether the NIC is told of their buffers. */
  const write = (count: number) => {
    for (let i = 0; i < count; i++) port.deliver(port.offered[i] as number, 12 + 60);
    const writes = port.submissions().filter(({ isRead }) => !isRead);
    const done = writes.map((one) => [one, one.bytes] as [typeof one, number]);
    return (port.complete(...done) & N.STATUS_ROOM) !== 0;
  };
  const offers = () => view.getUint16(N.ND_RX_AVAIL + V.VIRTQ_AVAIL_IDX, true);
  view.setUint16(event, (offers() - 1) & 0xffff, true);
  assertEquals(write(10), false, "the index that it asked for has passed");
  view.setUint16(event, offers() + 19, true);
  assertEquals([write(10), write(9), write(5), write(10)], [false, false, true, false]);
  // Buffers of frames that are dropped are room too.
  view.setUint16(event, offers(), true);
  port.deliver(port.offered[0] as number, 12 + 13);
  assertEquals(port.submissions().filter(({ isRead }) => !isRead).length, 0);
  assert(port.complete() & N.STATUS_ROOM);
});
