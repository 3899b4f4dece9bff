/**
 * What an engine keeps in a front-end's inflight memory, and where its successor goes on by it: in every moment in which
 * an engine can be killed, and whatever a front-end or a driver has made of the memory or the ring since.
 */
import { assertEquals } from "@std/assert";
import {
  INFLIGHT_PACKED_POSITION,
  INFLIGHT_SPLIT_USED_IDX,
  INFLIGHT_VERSION,
  INFLIGHT_VERSION_1,
} from "../../shared/layout/inflight.ts";
import { Q_INFLIGHT_IOVA, Q_STATE, QUEUE_STOPPED } from "../../shared/layout/nic.ts";
import { VIRTQ_PACKED_BASE_INITIAL, VIRTQ_USED_IDX } from "../../shared/layout/virtio.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import type { VirtqueueName } from "../support/formats.ts";
import { frame } from "../support/mock_guest.ts";
import { baseAt } from "../support/packed_guest.ts";

const SIZE = 32;
const IN_RING = -1;
/** In the guest's memory, behind all that its driver uses. */
const AT = 3 * 1024 ** 2;

const text = (position: number) => `0x${(position >>> 0).toString(16).padStart(8, "0")}`;

/** A guest that sends, whose transmit queue keeps its position in inflight memory that is new. */
function keeping(format: VirtqueueName) {
  const rig = new EngineRig(2);
  const guest = rig.attachVirtqueues(format, 0, { queueSize: SIZE });
  const peer = rig.attach(1, { queueSize: 256 });
  const queue = guest.queuePointer(1);
  const { iova, offset } = guest.options;
  rig.view.setBigUint64(queue + Q_INFLIGHT_IOVA, iova + BigInt(AT), true);
  const at = offset + AT;
  const again = (begin: () => number) => {
    rig.view.setUint32(queue + Q_STATE, QUEUE_STOPPED, true);
    assertEquals(begin(), 0);
    return rig.wasm.positionOf(queue) >>> 0;
  };
  let sent = 0;
  return {
    ...{ rig, guest, queue, at },
    start: (base: number) => again(() => rig.wasm.startQueue(queue, base | 0)),
    resume: (base: number) => again(() => rig.wasm.resumeInflight(queue, base | 0, IN_RING)),
    /** Sends some, of which each comes once, and whose buffers come back once each. */
    send: (count: number) => {
      for (let left = count; left > 0; left -= 8) {
        peer.fill(64 - peer.posted());
        guest.room();
        guest.send(Array.from({ length: Math.min(left, 8) }, () => frame({ dst: rigMac(1), src: rigMac(0) })));
        rig.run();
        assertEquals(peer.receive().length, Math.min(left, 8));
      }
      assertEquals(guest.room(), SIZE);
      sent += count;
      assertEquals(rig.counters(0).tx_frames, sent);
    },
  };
}

Deno.test("a split ring's used index is kept, from its start on", () => {
  const { rig, guest, at, start, send } = keeping("split");
  const kept = () => rig.view.getUint16(at + INFLIGHT_SPLIT_USED_IDX, true);
  send(5);
  assertEquals([kept(), rig.view.getUint16(at + INFLIGHT_VERSION, true)], [0, 0]);
  start(-1);
  assertEquals([kept(), rig.view.getUint16(at + INFLIGHT_VERSION, true)], [5, INFLIGHT_VERSION_1]);
  send(SIZE + 7);
  assertEquals([kept(), guest.view.getUint16(guest.tx().used + VIRTQ_USED_IDX, true)], [SIZE + 12, SIZE + 12]);
});

for (const format of ["packed", "packed in-order"] as const) {
  for (const frames of [1, 20, SIZE, SIZE + 9, 2 * SIZE, 3 * SIZE + 5]) {
    const where = `(${format}, ${frames} frames)`;
    Deno.test(`a successor goes on where the ring was, whatever the front-end says and the ring shows ${where}`, () => {
      for (const said of [VIRTQ_PACKED_BASE_INITIAL, 0, baseAt({ index: 3, wrap: true })]) {
        const { rig, guest, queue, start, resume, send } = keeping(format);
        start(VIRTQ_PACKED_BASE_INITIAL);
        send(frames);
        const position = rig.wasm.positionOf(queue) >>> 0;
        // The device area, in which engines keep it beside, is the driver's to write.
        guest.view.setUint16(guest.tx().used, 7, true);
        assertEquals(text(resume(said)), text(position), text(said));
        send(SIZE);
      }
    });

    Deno.test(`an engine that was killed while it published is believed as far as the driver can see ${where}`, () => {
      for (const isPublished of [true, false]) {
        const { rig, queue, at, start, resume, send } = keeping(format);
        start(VIRTQ_PACKED_BASE_INITIAL);
        send(frames);
        const before = rig.view.getBigUint64(at + INFLIGHT_PACKED_POSITION, true) & 0xff00_ffff_0000n;
        if (isPublished) send(8);
        const position = rig.wasm.positionOf(queue) >>> 0;
        // As between the announcement and its end: the new half is ahead of the old one.
        const now = rig.view.getBigUint64(at + INFLIGHT_PACKED_POSITION, true) & 0xff_0000_ffffn;
        const ahead = isPublished ? now : BigInt((Number(now & 0xffffn) + 3) % SIZE) | (now & ~0xffffn);
        rig.view.setBigUint64(at + INFLIGHT_PACKED_POSITION, before | ahead, true);
        assertEquals(text(resume(VIRTQ_PACKED_BASE_INITIAL)), text(position), `published: ${isPublished}`);
        send(SIZE);
      }
    });

    Deno.test(`a driver that has begun its ring anew is believed, not what was kept ${where}`, () => {
      const { rig, guest, start, resume, send } = keeping(format);
      start(VIRTQ_PACKED_BASE_INITIAL);
      send(frames);
      guest.tx().reset();
      assertEquals(text(resume(VIRTQ_PACKED_BASE_INITIAL)), text(VIRTQ_PACKED_BASE_INITIAL));
      send(3);
      rig.checkCanaries();
    });
  }

  Deno.test(`memory in which nothing was kept yet says nothing (${format})`, () => {
    const { rig, guest, resume, send } = keeping(format);
    send(5);
    const position = rig.wasm.positionOf(guest.queuePointer(1)) >>> 0;
    assertEquals(text(resume(position)), text(position));
    send(3);
  });

  Deno.test(`nonsense in the memory never leads beyond the ring (${format})`, () => {
    for (const nonsense of [0xffff_ffff_ffff_ffffn, 0x7fff_7fffn, BigInt(SIZE) | BigInt(SIZE) << 16n, 0x1f_001fn]) {
      const { rig, at, start, resume, send } = keeping(format);
      start(VIRTQ_PACKED_BASE_INITIAL);
      send(9);
      rig.view.setBigUint64(at + INFLIGHT_PACKED_POSITION, nonsense, true);
      const slot = resume(VIRTQ_PACKED_BASE_INITIAL) & 0x7fff;
      assertEquals(slot < SIZE, true);
      rig.run();
      rig.checkCanaries();
    }
  });
}
