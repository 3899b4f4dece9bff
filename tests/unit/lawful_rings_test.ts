/** What drivers lawfully put into their rings, however odd it looks: it is taken as it is meant. */
import { assertEquals } from "@std/assert";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT } from "../../shared/layout/virtio.ts";
import { EngineRig, rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame, writeDescriptor } from "../support/mock_guest.ts";

const target = { dst: rigMac(1), src: rigMac(0) };

for (const format of VIRTQUEUE_FORMATS) {
  Deno.test(`flags of the header that nobody has defined are ignored (${format})`, () => {
    const rig = new EngineRig(2);
    const a = rig.attachVirtqueues(format, 0);
    const b = rig.attachVirtqueues(format, 1);
    b.fill(8);
    // DATA_VALID and RSC_INFO are for received frames (VIRTIO 1.2 5.1.6.2.2); the rest is nothing yet.
    for (const flags of [2, 4, 0xf8, 0xfe]) {
      const at = a.heap;
      const len = a.writeFrame(at, frame(target), Uint8Array.of(flags));
      a.tx().add([{ addr: a.iova(at), len }]);
      a.tx().publish();
      rig.run();
      assertEquals(b.receive(), [frame(target)], `flags 0x${flags.toString(16)}`);
    }
    assertEquals(rig.counters(0).tx_bad_offload, 0);
  });
}

Deno.test("an indirect table may have more entries than the queue: the chain in it counts", () => {
  const rig = new EngineRig(2);
  const a = rig.attach(0, { queueSize: 8 });
  const b = rig.attach(1, { queueSize: 8 });
  b.fill(8);
  const [table, data] = [a.heap + 65536, a.heap];
  const len = a.writeFrame(data, frame(target));
  writeDescriptor(a.view, table, { addr: a.iova(data), len: 20, flags: VIRTQ_DESC_F_NEXT, next: 200 });
  writeDescriptor(a.view, table + 200 * 16, { addr: a.iova(data + 20), len: len - 20 });
  a.tx().addRaw([{ addr: a.iova(table), len: 256 * 16, flags: VIRTQ_DESC_F_INDIRECT }]);
  a.tx().publish();
  rig.run();
  assertEquals(rig.error(0, 1), 0);
  assertEquals(b.receive(), [frame(target)]);
  rig.checkCanaries();
});
