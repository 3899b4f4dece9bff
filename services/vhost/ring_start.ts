/** The request that starts a vring, checked for what its format allows: the format may have come last. */
import type { RequestInput } from "../../shared/device/mod.ts";
import { ProtocolError } from "../../shared/vhost_user/mod.ts";
import type { MemoryTable } from "./memory.ts";
import { checkBase, checkRingSize } from "./negotiation.ts";
import type { Vring } from "./vring.ts";

/** What a ring's start depends on beside the ring. */
export interface RingStart {
  memory: MemoryTable;
  features: bigint;
  packed: boolean;
  /** Where the ring goes on. */
  base: number;
}

/** The device socket's request for `ring`. Throws ProtocolError. */
export function startRequest(ring: Vring, { memory, features, packed, base }: RingStart): RequestInput {
  const [desc, avail, used] = [ring.descUser, ring.availUser, ring.usedUser].map((address) =>
    address === undefined ? undefined : memory.toGuest(address)
  );
  if (desc === undefined || avail === undefined || used === undefined) {
    throw new ProtocolError(`vring ${ring.index}: its rings are outside the memory table`);
  }
  checkRingSize(ring.index, ring.size, packed);
  checkBase(ring.index, base, packed);
  return {
    op: "queueStart",
    index: ring.index,
    flavour: packed ? "packed" : "split",
    size: ring.size,
    desc,
    avail,
    used,
    base,
    resume: packed && !ring.hasRun,
    features,
    kick: ring.kick !== undefined,
    call: ring.call !== undefined,
  };
}
