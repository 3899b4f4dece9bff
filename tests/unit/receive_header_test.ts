/**
 * What the engine writes before and beside a frame: its virtio-net header (virtio 1.2 §5.1.6.4) and its used element. A
 * driver's buffer may hold anything from the last time round, also what happens to look nearly right.
 */
import { assertEquals } from "@std/assert";
import { VIRTIO_NET_HDR_BYTES, VIRTQ_USED_ELEM_BYTES, VIRTQ_USED_RING } from "../../shared/layout/virtio.ts";
import { EngineRig, rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame, type SplitDriver } from "../support/mock_guest.ts";

const LEGACY_HDR_BYTES = 10;
const BUFFER_BYTES = 2048;
const NUM_BUFFERS = 10;

/** A header that is zero but for some bytes. */
function header(bytes: Record<number, number>): Uint8Array {
  const made = new Uint8Array(VIRTIO_NET_HDR_BYTES);
  for (const [at, value] of Object.entries(bytes)) made[Number(at)] = value;
  return made;
}

/** What buffers hold before. The right header is among them. */
const STALE = [
  header({ [NUM_BUFFERS]: 1 }),
  header({}),
  new Uint8Array(VIRTIO_NET_HDR_BYTES).fill(0xff),
  ...Array.from({ length: VIRTIO_NET_HDR_BYTES }, (_, at) => header({ [NUM_BUFFERS]: 1, [at]: 2 })),
];

for (const format of VIRTQUEUE_FORMATS) {
  for (const hdrBytes of [VIRTIO_NET_HDR_BYTES, LEGACY_HDR_BYTES]) {
    for (const bytes of [60, 500, 1514]) {
      Deno.test(`a frame of ${bytes} bytes has its header of ${hdrBytes}, whatever the buffer held (${format})`, () => {
        const rig = new EngineRig(2);
        const [a, b] = [rig.attach(0), rig.attachVirtqueues(format, 1, { hdrBytes, bufferBytes: BUFFER_BYTES })];
        const memory = new Uint8Array(b.view.buffer, b.view.byteOffset);
        STALE.forEach((stale, i) => memory.set(stale, b.heap + i * BUFFER_BYTES));
        b.fill(STALE.length);
        const sent = STALE.map(() => frame({ dst: rigMac(1), src: rigMac(0), bytes }));
        a.send(sent);
        rig.run();
        STALE.forEach((stale, i) => {
          const right = header(hdrBytes === LEGACY_HDR_BYTES ? {} : { [NUM_BUFFERS]: 1 });
          assertEquals(b.bytes(b.heap + i * BUFFER_BYTES, hdrBytes), right.slice(0, hdrBytes), `it held ${stale}`);
        });
        assertEquals(b.receive(), sent);
        rig.checkCanaries();
      });
    }
  }
}

Deno.test("a used element is right whatever its slot held: the same, another length, another head", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0), rig.attach(1)];
  const sent = [60, 61, 62, 63].map((bytes) => frame({ dst: rigMac(1), src: rigMac(0), bytes }));
  const lengths = sent.map(({ byteLength }) => VIRTIO_NET_HDR_BYTES + byteLength);
  const preset = (queue: SplitDriver, slot: number, id: number, len: number) => {
    queue.view.setUint32(queue.used + VIRTQ_USED_RING + slot * VIRTQ_USED_ELEM_BYTES, id, true);
    queue.view.setUint32(queue.used + VIRTQ_USED_RING + slot * VIRTQ_USED_ELEM_BYTES + 4, len, true);
  };
  const held: [number, number][] = [[0, lengths[0] ?? 0], [1, 0], [7, lengths[2] ?? 0], [0xffff, 0xffff]];
  held.forEach(([id, len], slot) => {
    preset(b.rx(), slot, id, len);
    preset(a.tx(), slot, id, slot === 0 ? 0 : len);
  });
  b.fill(sent.length);
  a.send(sent);
  rig.run();
  assertEquals(b.receive(), sent);
  const back = sent.map(() => a.tx().popUsed());
  assertEquals(back, sent.map((_, id) => ({ id, len: 0 })));
});
