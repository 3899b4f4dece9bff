/**
 * The receiver that is slow to fill on purpose: each of its buffers is an indirect table of a thousand pieces. A row
 * shows what is left for a neighbour while somebody sends to it.
 */
import type { MockGuest } from "../../support/mock_guest.ts";
import { measure } from "./measure.ts";
import type { Row } from "./row.ts";
import { type Kit, QUEUE, SMALL, World } from "./world.ts";

const ENTRIES = 1000;
const FRAME_BYTES = 1514;
const HEADER_BYTES = 12;
const GUEST_HALF_BYTES = 2 * 1024 ** 2;
const BURST = 256;

/** Makes every buffer of the guest's receive ring the same table: a first piece, and 999 of a byte each. */
function thousandPieces(kit: Kit, guest: MockGuest): void {
  const [NEXT, WRITE, INDIRECT] = [1, 2, 4];
  const buffers = guest.options.offset + GUEST_HALF_BYTES;
  for (let i = 0; i < ENTRIES; i++) {
    const last = i + 1 === ENTRIES;
    kit.mock.writeDescriptor(guest.view, guest.heap + i * 16, {
      addr: guest.iova(buffers + (i % 2 === 0 ? 4096 : 65536)),
      len: i === 0 ? HEADER_BYTES + FRAME_BYTES - (ENTRIES - 1) : 1,
      flags: WRITE | (last ? 0 : NEXT),
      next: last ? 0 : i + 1,
    });
  }
  const ring = guest.rx();
  const table = { addr: guest.iova(guest.heap), len: ENTRIES * 16, flags: INDIRECT };
  for (let i = 0; i < ring.size; i++) ring.writeDescriptor(i, table);
}

/** The guest's memory in so many regions, those that are in use last. */
function splitMemory(world: World, pool: number, { iova, offset }: MockGuest["options"], regions: number): void {
  const unused = Array.from({ length: regions - 2 }, (_, i) => (
    { iova: (1n << 32n) + BigInt(i) * 0x10000n, size: 4096, window: offset }
  ));
  world.rig.setRegions(pool, [
    ...unused,
    { iova, size: GUEST_HALF_BYTES, window: offset },
    { iova: iova + BigInt(GUEST_HALF_BYTES), size: GUEST_HALF_BYTES, window: offset + GUEST_HALF_BYTES },
  ]);
}

/** VF 0 sends to VF 1, which is hostile in so many regions (0: honest), and VF 2 to VF 3, its neighbour. */
export function besideHostile(name: string, regions: number): Row {
  return {
    name,
    unit: "Mpps",
    run(kit, time) {
      const world = new World(kit, 4);
      const flags = kit.constant("QUEUE_F_INDIRECT") | kit.constant("QUEUE_F_MRG_RXBUF");
      const large = { queueSize: QUEUE, buffers: { strideBytes: 1600, slots: 256 }, flags };
      const small = { queueSize: BURST, buffers: SMALL, flags };
      world.sender(0, world.frames(world.mac(0), [world.mac(1)], FRAME_BYTES), large);
      const receiver = world.receiver(1, large);
      if (regions > 0 && receiver instanceof kit.mock.MockGuest) thousandPieces(kit, receiver);
      if (regions > 1 && receiver instanceof kit.mock.MockGuest) splitMemory(world, 1, receiver.options, regions);
      world.sender(2, world.frames(world.mac(2), [world.mac(3)]), small);
      world.receiver(3, small);
      const { gained, ns } = measure(world, false, time);
      return gained(2, "tx_frames") / ns * 1e3;
    },
  };
}
