/** Frames at the edges: the longest, the shortest, and those in pieces where somebody looks behind their tag. */
import { assertEquals } from "@std/assert";
import { FRAME_BYTES_MAX } from "../../shared/layout/nic.ts";
import { EngineRig, FORMATS, rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const TAG_BYTES = 4;
const HDR_BYTES = 12;

/** A frame of so many bytes from VF 0 to VF 1. */
function long(bytes: number): Uint8Array {
  const made = new Uint8Array(bytes).fill(0xee);
  made.set(frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 }).subarray(0, 14));
  return made;
}

for (const format of VIRTQUEUE_FORMATS) {
  for (const slack of [0, 1, 2, 3, 4, 5]) {
    Deno.test(`the longest frame with a tag put in, ${slack} bytes before its receiver's memory ends (${format})`, () => {
      const rig = new EngineRig(2, { 0: { vlan: 10 }, 1: { trunk: [10] } });
      const a = rig.attach(0, { queueSize: 8, bufferBytes: 70_000 });
      const b = rig.attachVirtqueues(format, 1, { queueSize: 8, bufferBytes: 70_000 });
      const { iova, bytes, offset } = b.options;
      const need = HDR_BYTES + TAG_BYTES + FRAME_BYTES_MAX;
      // The receiver's region has translated before.
      b.fill(1);
      a.send([long(100)]);
      rig.run();
      assertEquals(b.receive().length, 1);
      const at = bytes - need - slack;
      b.rx().add([{ addr: iova + BigInt(at), len: need, write: true }]);
      b.rx().publish();
      a.send([long(FRAME_BYTES_MAX)]);
      rig.run();
      assertEquals([rig.error(0, 1), rig.error(1, 0)], [0, 0]);
      const got = b.bytes(offset + at + HDR_BYTES, need - HDR_BYTES);
      assertEquals([...got.subarray(12, 16)], [0x81, 0, 0, 10]);
      assertEquals(got.at(-1), 0xee);
      rig.checkCanaries();
      // A byte further it does not fit any more.
      b.rx().add([{ addr: iova + BigInt(bytes - need + 1), len: need, write: true }]);
      b.rx().publish();
      a.send([long(FRAME_BYTES_MAX)]);
      rig.run();
      assertEquals(rig.error(1, 0) !== 0, true);
      rig.checkCanaries();
    });
  }
}

for (const format of FORMATS) {
  for (const cuts of [[], [1], [HDR_BYTES + 13], [HDR_BYTES + 16], [HDR_BYTES + 17, HDR_BYTES + 18, HDR_BYTES + 30]]) {
    Deno.test(`a priority tag: what is behind it is kept, and a second tag is seen; cut at [${cuts}] (${format})`, () => {
      const rig = new EngineRig(2);
      const [a, b] = [rig.attachAs(format, 0), rig.attachAs(format, 1)];
      b.fill(8);
      const send = (inner: number) => {
        const sent = new Uint8Array(80).map((_, i) => i);
        sent.set(frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 }).subarray(0, 12));
        sent.set([0x81, 0, 0x20, 0, inner >> 8, inner & 255], 12);
        if (cuts.length > 0) a.sendPieces(sent, cuts);
        else a.send([sent]);
        rig.run();
        return sent;
      };
      const sent = send(0x0800);
      assertEquals(b.receive(), [sent]);
      send(0x8100);
      assertEquals(b.receive(), []);
      assertEquals(rig.counters(0).tx_vlan_denied, 1);
      rig.checkCanaries();
    });
  }
}
