/** What only split rings can do wrong (hostile.md 2, 3, 5): links between descriptors, heads and indices. */
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT } from "../../shared/layout/virtio.ts";
import { BAD_AVAIL_IDX, BAD_CHAIN_LENGTH, BAD_HEAD, BAD_INDIRECT, BAD_NEXT } from "../../shared/layout/nic.ts";
import type { MockGuest } from "./mock_guest.ts";
import { type Attacker, offerTable, type RingAttack } from "./attack_kit.ts";

/** Offers descriptor 0, whose next one is `next`, with a buffer of `len` bytes. */
function offerLinked({ guest, ring, flags }: Attacker<MockGuest>, next: number, len = 16): void {
  ring.writeDescriptor(0, { addr: guest.options.iova, len, flags: VIRTQ_DESC_F_NEXT | flags, next });
  ring.offer(0);
  ring.publish();
}

function offerHead({ ring }: Attacker<MockGuest>, head: number): void {
  ring.offer(head);
  ring.publish();
}

/** The attacks. */
export const SPLIT_ATTACKS: RingAttack<MockGuest>[] = [
  { name: "2 chain that loops onto itself", reason: BAD_CHAIN_LENGTH, attack: (a) => offerLinked(a, 0) },
  {
    name: "2 chain of zero-length descriptors in a loop",
    reason: BAD_CHAIN_LENGTH,
    attack: (a) => {
      a.ring.writeDescriptor(1, { addr: a.guest.options.iova, len: 0, flags: VIRTQ_DESC_F_NEXT | a.flags, next: 0 });
      offerLinked(a, 1, 0);
    },
  },
  { name: "2 next index at the queue size", reason: BAD_NEXT, attack: (a) => offerLinked(a, a.ring.size) },
  { name: "2 next index 65535", reason: BAD_NEXT, attack: (a) => offerLinked(a, 65535) },
  { name: "2 head at the queue size", reason: BAD_HEAD, attack: (a) => offerHead(a, a.ring.size) },
  { name: "2 head 65535", reason: BAD_HEAD, attack: (a) => offerHead(a, 65535) },
  {
    name: "3 indirect table in an indirect table",
    reason: BAD_INDIRECT,
    attack: (a) => offerTable(a, [{ addr: a.guest.iova(a.guest.heap), len: 16, flags: VIRTQ_DESC_F_INDIRECT }]),
  },
  {
    name: "3 next index beyond the indirect table",
    reason: BAD_NEXT,
    attack: (a) => offerTable(a, [{ addr: a.guest.options.iova, len: 16, flags: VIRTQ_DESC_F_NEXT, next: 1 }]),
  },
  {
    name: "3 loop in the indirect table",
    reason: BAD_CHAIN_LENGTH,
    attack: (a) => offerTable(a, [{ addr: a.guest.options.iova, len: 16, flags: VIRTQ_DESC_F_NEXT, next: 0 }]),
  },
  {
    name: "5 avail index jumps by the queue size + 1",
    reason: BAD_AVAIL_IDX,
    attack: ({ ring }) => ring.publish(ring.usedIdx + ring.size + 1),
  },
  {
    name: "5 avail index goes backwards",
    reason: BAD_AVAIL_IDX,
    attack: ({ ring }) => ring.publish((ring.usedIdx - 1) & 0xffff),
  },
];
