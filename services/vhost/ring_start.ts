/** What starts a vring: where it lies, and the request for it, checked for what its format allows. */
import type { RequestInput } from "../../shared/device/mod.ts";
import { ProtocolError } from "../../shared/vhost_user/mod.ts";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
  VIRTQ_PACKED_BASE_INITIAL,
  VIRTQ_PACKED_DESC_F_USED,
  VIRTQ_PACKED_DESC_FLAGS,
} from "../../shared/layout/virtio.ts";
import { isGiven } from "./control/packed.ts";
import type { KeptControl } from "./control/queue.ts";
import type { RingPlace } from "./control/ring.ts";
import type { MemoryTable } from "./memory.ts";
import { checkBase, checkRingSize, hasBit } from "./negotiation.ts";
import type { Vring } from "./vring.ts";

/** What a ring's start depends on beside the ring. */
export interface RingStart {
  memory: MemoryTable;
  features: bigint;
  packed: boolean;
  /** Where the ring goes on. */
  base: number;
  /** Where its position is kept, if that is said. */
  inflight: bigint | undefined;
}

/** The guest addresses of a ring's three areas. */
type Areas = Pick<RingPlace, "desc" | "avail" | "used">;

function areasOf({ descUser, availUser, usedUser }: Vring, memory: MemoryTable): Areas | undefined {
  const [desc, avail, used] = [descUser, availUser, usedUser].map((address) =>
    address === undefined ? undefined : memory.toGuest(address)
  );
  if (desc === undefined || avail === undefined || used === undefined) return undefined;
  return { desc, avail, used };
}

/** Whether a ring lies in `memory`, at the guest addresses that it has in `before`, if that is given. */
export function isMapped(ring: Vring, memory: MemoryTable, before?: MemoryTable): boolean {
  const areas = areasOf(ring, memory);
  const old = before && areasOf(ring, before);
  return areas !== undefined &&
    (old === undefined || (areas.desc === old.desc && areas.avail === old.avail && areas.used === old.used));
}

function mappedAreas(ring: Vring, memory: MemoryTable): Areas {
  const areas = areasOf(ring, memory);
  if (!areas) throw new ProtocolError(`vring ${ring.index}: its rings are outside the memory table`);
  return areas;
}

/**
 * Where a stopped ring goes on. User-Mode Linux says 0 of packed rings too, though their wrap counters begin at 1. In a
 * ring that has gone on to slot 0 of an even lap, the descriptor there has been used; so in one whose descriptor has not
 * been, 0 means its beginning. With IN_ORDER a used descriptor may not show it, and what this back-end has said itself
 * is believed.
 */
export function baseOf(ring: Vring, memory: MemoryTable, features: bigint): number {
  if (!hasBit(features, VIRTIO_F_RING_PACKED)) return ring.base ?? 0;
  const base = ring.base ?? VIRTQ_PACKED_BASE_INITIAL;
  if (base !== 0 || (hasBit(features, VIRTIO_F_IN_ORDER) && ring.isBaseOurs)) return base;
  const desc = mappedAreas(ring, memory).desc;
  const flags = memory.read(desc + BigInt(VIRTQ_PACKED_DESC_FLAGS), 2);
  const isUsed = flags !== undefined &&
    (new DataView(flags.buffer).getUint16(0, true) & VIRTQ_PACKED_DESC_F_USED) !== 0;
  return isUsed ? base : VIRTQ_PACKED_BASE_INITIAL;
}

/** Where a control queue goes on whose process has ended, as that has kept it; a split one says it itself. */
export function continuedBase(ring: Vring, memory: MemoryTable, kept: KeptControl | undefined): number | undefined {
  const desc = areasOf(ring, memory)?.desc;
  if (!kept || desc === undefined) return undefined;
  return isGiven(memory, desc, kept.position) ? kept.next : kept.position;
}

/** Where a control queue runs. Throws ProtocolError. */
export function controlPlace(ring: Vring, { memory, features, packed, base }: Omit<RingStart, "inflight">): RingPlace {
  checkRingSize(ring.index, ring.size, packed);
  return {
    ...mappedAreas(ring, memory),
    size: ring.size,
    base,
    eventIdx: hasBit(features, VIRTIO_RING_F_EVENT_IDX),
    indirect: hasBit(features, VIRTIO_RING_F_INDIRECT_DESC),
  };
}

/**
 * The device socket's request for `ring`. Throws ProtocolError. A split ring goes on at its used index, whatever base
 * its front-end has said: what an engine takes it gives back in order, so nothing is in flight where nobody serves the
 * ring. Front-ends that come back say their avail index (Cloud Hypervisor) or 0 (DPDK's in server mode).
 */
export function startRequest(ring: Vring, { memory, features, packed, base, inflight }: RingStart): RequestInput {
  checkRingSize(ring.index, ring.size, packed);
  checkBase(ring.index, base, packed);
  return {
    op: "queueStart",
    index: ring.index,
    flavour: packed ? "packed" : "split",
    size: ring.size,
    ...mappedAreas(ring, memory),
    base: packed ? base : -1,
    resume: packed && !ring.hasRun,
    features,
    ...(ring.usedLog === undefined ? {} : { log: ring.usedLog }),
    ...(inflight === undefined ? {} : { inflight }),
    kick: ring.kick !== undefined,
    call: ring.call !== undefined,
  };
}
