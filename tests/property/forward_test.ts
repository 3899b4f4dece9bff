/**
 * Any frames, in any buffers, between any guests: what arrives is what a model of the switch says, byte for byte and in
 * order. Chains are cut at random places, directly or through indirect tables; receive buffers may be mergeable.
 */
import fc from "fast-check";
import { assertEquals } from "@std/assert";
import { QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT } from "../../shared/layout/virtio.ts";
import { EngineRig, type RigGuest, rigMac } from "../support/engine_rig.ts";
import { BROADCAST, frame, writeDescriptor } from "../support/mock_guest.ts";

const RUNS = 80;
const VFS = 3;
const BUFFER_BYTES = 512;

interface Sent {
  from: number;
  to: number;
  bytes: number;
  cuts: number[];
  indirect: boolean;
  etherType: number;
}

/** Sends one frame cut into pieces; answers the frame. */
function send(guest: RigGuest, sent: Sent, slot: number): Uint8Array {
  const dst = sent.to === VFS ? BROADCAST : rigMac(sent.to);
  const bytes = frame({ dst, src: rigMac(sent.from), bytes: sent.bytes, etherType: sent.etherType });
  const at = guest.heap + 400_000 + slot * 8192;
  const length = guest.writeFrame(at, bytes);
  const edges = [0, ...new Set(sent.cuts.map((cut) => 1 + cut % (length - 1))), length].sort((a, b) => a - b);
  const parts = edges.slice(1).map((end, i) => ({
    addr: guest.iova(at + (edges[i] ?? 0)),
    len: end - (edges[i] ?? 0),
  }));
  if (!sent.indirect) {
    guest.tx().add(parts);
  } else {
    const table = at + 4096;
    parts.forEach((part, i) => {
      const last = i === parts.length - 1;
      writeDescriptor(guest.view, table + i * 16, { ...part, flags: last ? 0 : VIRTQ_DESC_F_NEXT, next: i + 1 });
    });
    const head = guest.tx().add([{ addr: guest.iova(table), len: parts.length * 16 }]);
    guest.tx().writeDescriptor(head, { addr: guest.iova(table), len: parts.length * 16, flags: VIRTQ_DESC_F_INDIRECT });
  }
  guest.tx().publish();
  return bytes;
}

/** Everything that has arrived, mergeable or not. */
function take(guest: RigGuest): Uint8Array[] {
  const frames: Uint8Array[] = [];
  const rx = guest.rx();
  const read = (used: { id: number; len: number }) => {
    const iova = guest.view.getBigUint64(rx.desc + used.id * 16, true);
    return [...guest.bytes(Number(iova - guest.options.iova) + guest.options.offset, used.len)];
  };
  for (let used = rx.popUsed(); used; used = rx.popUsed()) {
    const data = read(used);
    for (let more = (data[10] ?? 0) + (data[11] ?? 0) * 256 - 1; more > 0; more--) {
      const next = rx.popUsed();
      if (!next) throw new Error("num_buffers promises more than was used");
      data.push(...read(next));
    }
    frames.push(Uint8Array.from(data.slice(12)));
  }
  return frames;
}

Deno.test("any frames in any buffers arrive whole, in order, where they belong", () => {
  const sent = fc.record({
    from: fc.integer({ min: 0, max: VFS - 1 }),
    to: fc.integer({ min: 0, max: VFS }),
    bytes: fc.oneof(fc.integer({ min: 14, max: 128 }), fc.integer({ min: 14, max: 3000 })),
    cuts: fc.array(fc.nat(4000), { maxLength: 4 }),
    indirect: fc.boolean(),
    etherType: fc.constantFrom(0x0800, 0x0806, 0x86dd, 0x88b5),
  });
  fc.assert(
    fc.property(
      fc.array(sent, { minLength: 1, maxLength: 40, size: "max" }),
      fc.array(fc.boolean(), { minLength: VFS, maxLength: VFS }),
      fc.boolean(),
      (list, mergeable, eventIdx) => {
        const rig = new EngineRig(VFS);
        const guests = mergeable.map((on, vf) => {
          const flags = QUEUE_F_INDIRECT | (on ? QUEUE_F_MRG_RXBUF : 0) | (eventIdx ? QUEUE_F_EVENT_IDX : 0);
          return rig.attach(vf, { queueSize: 256, bufferBytes: on ? BUFFER_BYTES : 4096 }, flags);
        });
        const expected = guests.map(() => [] as Uint8Array[]);
        list.forEach((one, slot) => {
          for (const guest of guests) guest.fill(8 - ((guest.rx().availIdx - guest.rx().usedIdx) & 0xffff));
          const bytes = send(guests[one.from] as RigGuest, one, slot);
          rig.run(20);
          guests.forEach((_, vf) => {
            if (vf !== one.from && (one.to === vf || one.to === VFS)) expected[vf]?.push(bytes);
          });
          guests.forEach((guest, vf) => {
            assertEquals(rig.error(vf, 0) || rig.error(vf, 1), 0);
            assertEquals(take(guest), expected[vf]?.splice(0));
          });
        });
        rig.checkCanaries();
      },
    ),
    { numRuns: RUNS, endOnFailure: true },
  );
});
