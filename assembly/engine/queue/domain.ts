/**
 * A domain is one VF's IOMMU: the regions of its guest's memory, sorted by address, and where each is mapped in the
 * arena. Every address a guest writes goes through here, and there is no other way from an address to a pointer. Wasm's
 * own bounds check does not separate guests; this does. Each queue remembers the two regions that translated last: a
 * guest of QEMU's has two.
 */
import {
  B_CONTIGUOUS,
  DOMAIN_STRIDE,
  DOMAINS,
  FRAME_OUT_BYTES_MAX,
  P_REGION_COUNT,
  PERM_WRITE,
  Q_POOL,
  Q_REGION2_IOVA,
  Q_REGION2_SIZE,
  Q_REGION2_WINDOW,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  REGION_IOVA,
  REGION_PERM,
  REGION_SIZE,
  REGION_STRIDE,
  REGION_WINDOW,
  REGIONS_MAX,
} from "../../../shared/layout/nic.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../../shared/layout/virtio.ts";
import { batch, context, poolAt } from "../context.ts";
import { spend, UNITS_REGION } from "../schedule/cost.ts";

/** A buffer that begins so far before its region's end holds header, tag and frame, so only its start is compared. */
const REACH_SLACK: u64 = FRAME_OUT_BYTES_MAX + VIRTIO_NET_HDR_BYTES;

/** The region of `pool` that holds `iova` with at least permission `perm`, 0 if none does. */
function findRegion(pool: u32, iova: u64, perm: u32): usize {
  const first: usize = context + DOMAINS + pool * DOMAIN_STRIDE;
  let low: u32 = 0;
  let high = min(load<u32>(poolAt(pool), P_REGION_COUNT), <u32> REGIONS_MAX);
  let steps: u32 = 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u64>(first + middle * REGION_STRIDE, REGION_IOVA) <= iova) low = middle + 1;
    else high = middle;
    steps++;
  }
  spend(steps * UNITS_REGION);
  if (low == 0) return 0;
  const region = first + (low - 1) * REGION_STRIDE;
  if (iova - load<u64>(region, REGION_IOVA) >= load<u64>(region, REGION_SIZE)) return 0;
  return (load<u32>(region, REGION_PERM) & perm) == perm ? region : 0;
}

/**
 * The arena pointer of `iova` in the domain of queue `q`, 0 if it has none. B_CONTIGUOUS then holds how many bytes, up
 * to `length`, lie behind it without a gap; a caller that needs more translates again from there. Remembers a
 * read-write region in the queue, so that the next buffer is one comparison away.
 */
export function translate(q: usize, iova: u64, length: u32, perm: u32): usize {
  const region = findRegion(load<u32>(q, Q_POOL), iova, perm);
  if (region == 0) return 0;
  const base = load<u64>(region, REGION_IOVA);
  const size = load<u64>(region, REGION_SIZE);
  const window = load<u32>(region, REGION_WINDOW);
  const offset = iova - base;
  const rest = size - offset;
  store<u32>(batch(), rest < <u64> length ? <u32> rest : length, B_CONTIGUOUS);
  if ((load<u32>(region, REGION_PERM) & PERM_WRITE) != 0 && base != load<u64>(q, Q_REGION_IOVA)) {
    store<u64>(q, load<u64>(q, Q_REGION_IOVA), Q_REGION2_IOVA);
    store<u64>(q, load<u64>(q, Q_REGION_SIZE), Q_REGION2_SIZE);
    store<u32>(q, load<u32>(q, Q_REGION_WINDOW), Q_REGION2_WINDOW);
    store<u64>(q, base, Q_REGION_IOVA);
    store<u64>(q, size, Q_REGION_SIZE);
    store<u32>(q, window, Q_REGION_WINDOW);
  }
  return window + <u32> offset;
}

/** The arena pointer of `length` contiguous bytes at `iova` (a ring), 0 if they are not all in one region. */
export function translateWhole(q: usize, iova: u64, length: u32, perm: u32): usize {
  const pointer = translate(q, iova, length, perm);
  return pointer != 0 && load<u32>(batch(), B_CONTIGUOUS) == length ? pointer : 0;
}

/** The pointer of a buffer that lies whole in one of the two remembered regions, else 0. */
@inline
export function remembered(q: usize, iova: u64, length: u32): usize {
  const offset = iova - load<u64>(q, Q_REGION_IOVA);
  const size = load<u64>(q, Q_REGION_SIZE);
  if (offset < size && <u64> length <= size - offset) return load<u32>(q, Q_REGION_WINDOW) + <u32> offset;
  const offset2 = iova - load<u64>(q, Q_REGION2_IOVA);
  const size2 = load<u64>(q, Q_REGION2_SIZE);
  if (offset2 < size2 && <u64> length <= size2 - offset2) return load<u32>(q, Q_REGION2_WINDOW) + <u32> offset2;
  return 0;
}

/** Offsets below this hold any frame's buffer whole; buffers at a region's very end are looked at with their length. */
@inline
export function reachOf(size: u64): u64 {
  return size > REACH_SLACK ? size - REACH_SLACK : 0;
}

/** The pointer of a buffer if the second remembered region holds any frame there, else 0. */
export function inSecond(q: usize, address: u64): usize {
  const offset = address - load<u64>(q, Q_REGION2_IOVA);
  if (offset >= reachOf(load<u64>(q, Q_REGION2_SIZE))) return 0;
  return load<u32>(q, Q_REGION2_WINDOW) + <usize> offset;
}

/** Forgets which regions translated last, when the domain's memory changes. */
export function forgetRegions(q: usize): void {
  store<u64>(q, 0, Q_REGION_SIZE);
  store<u64>(q, 0, Q_REGION2_SIZE);
  store<u64>(q, -1, Q_REGION_IOVA);
}
