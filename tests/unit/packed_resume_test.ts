/**
 * Where a packed ring goes on whose front-end lost its back-end: what the front-end says, what was kept, and what the
 * ring itself shows, each of which may be out of date.
 */
import { assertEquals } from "@std/assert";
import { Q_FLAGS, Q_STATE, QUEUE_F_KEEP_POSITION, QUEUE_STOPPED } from "../../shared/layout/nic.ts";
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import { baseAt, type PackedGuest } from "../support/packed_guest.ts";

const SIZE = 32;
/** The position lies in the ring's device area. */
const IN_RING = -1;
const FORMATS = ["packed", "packed in-order"] as const;

const text = (position: number) => `0x${(position >>> 0).toString(16).padStart(8, "0")}`;

/** A guest that sends, with its transmit queue stopped. */
function stopped(format: typeof FORMATS[number]) {
  const rig = new EngineRig(2);
  const guest = rig.attachVirtqueues(format, 0, { queueSize: SIZE }) as PackedGuest & {
    queuePointer(i: number): number;
  };
  const peer = rig.attach(1, { queueSize: 256 });
  peer.fill(200);
  const queue = guest.queuePointer(1);
  const keep = rig.view.getUint32(queue + Q_FLAGS, true) | QUEUE_F_KEEP_POSITION;
  rig.view.setUint32(queue + Q_FLAGS, keep, true);
  const send = (count: number) => {
    for (let left = count; left > 0; left -= 8) {
      guest.room();
      guest.send(Array.from({ length: Math.min(left, 8) }, () => frame({ dst: rigMac(1), src: rigMac(0) })));
      rig.run();
    }
    guest.room();
    return rig.counters(0).tx_frames ?? 0;
  };
  const resume = (base: number, kept: number) => {
    rig.view.setUint32(queue + Q_STATE, QUEUE_STOPPED, true);
    assertEquals(rig.wasm.resumeQueue(queue, base | 0, kept), 0);
    return rig.wasm.positionOf(queue) >>> 0;
  };
  return { rig, guest, queue, send, resume };
}

for (const format of FORMATS) {
  for (const frames of [1, 20, SIZE, SIZE + 9, 2 * SIZE, 3 * SIZE + 5]) {
    Deno.test(`after ${frames} frames the base of the ring's beginning is not believed (${format})`, () => {
      for (const where of ["in the ring", "with the NIC"]) {
        const { rig, queue, send, resume } = stopped(format);
        send(frames);
        const position = rig.wasm.positionOf(queue) >>> 0;
        const at = resume(VIRTQ_PACKED_BASE_INITIAL, where === "in the ring" ? IN_RING : position);
        assertEquals(text(at), text(position), where);
        assertEquals(send(3), frames + 3);
      }
    });

    Deno.test(`after ${frames} frames a driver begins anew, and is believed (${format})`, () => {
      const { rig, guest, queue, send, resume } = stopped(format);
      send(frames);
      const kept = rig.wasm.positionOf(queue) >>> 0;
      assertEquals(guest.tx().reset() >>> 0, VIRTQ_PACKED_BASE_INITIAL);
      for (const base of [VIRTQ_PACKED_BASE_INITIAL, 0x8000]) {
        for (const position of [kept, IN_RING]) {
          assertEquals(text(resume(base, position)), text(VIRTQ_PACKED_BASE_INITIAL));
        }
      }
      assertEquals(send(3), frames + 3);
    });
  }

  for (const index of [0, 1, 20]) {
    for (const wrap of [true, false]) {
      Deno.test(`a ring that stands at ${index}, wrap ${wrap}, whatever a stranger's device area holds (${format})`, () => {
        for (const area of [0, 0x8000, 5, 0x8005, 0x801f, 0x7fff]) {
          const { guest, send, resume } = stopped(format);
          const base = guest.tx().moveTo({ index, wrap }) >>> 0;
          if (index === 0 && wrap) guest.tx().reset();
          guest.view.setUint16(guest.tx().used, area, true);
          assertEquals(text(resume(base, IN_RING)), text(baseAt({ index, wrap })), `device area ${area}`);
          assertEquals(send(3), 3);
        }
      });
    }
  }
}
