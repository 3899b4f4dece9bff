/**
 * A domain is one VF's IOMMU: the regions of its guest's memory and where each is mapped in the arena. Every address
 * a guest writes goes through `translate`, and there is no other way from an address to a pointer. Wasm's own bounds
 * check does not separate guests; this does.
 */
import {
  DOMAIN_STRIDE,
  DOMAINS,
  P_REGION_COUNT,
  PERM_WRITE,
  POOL_STRIDE,
  POOLS,
  Q_POOL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  REGION_IOVA,
  REGION_PERM,
  REGION_SIZE,
  REGION_STRIDE,
  REGION_WINDOW,
  REGIONS_MAX,
} from "../../shared/layout/nic.ts";

/** Regions looked at since the caller last set this to 0: what translating has cost. */
export let regionsSeen: u32 = 0;

/** Starts to count `regionsSeen` anew. */
export function clearRegionsSeen(): void {
  regionsSeen = 0;
}

/** The region of `pool` that holds `iova` with at least permission `perm`, 0 if none does. */
function findRegion(pool: u32, iova: u64, perm: u32): usize {
  let region: usize = DOMAINS + pool * DOMAIN_STRIDE;
  let count = load<u32>(POOLS + pool * POOL_STRIDE, P_REGION_COUNT);
  if (count > <u32> REGIONS_MAX) count = REGIONS_MAX;
  for (let i: u32 = 0; i < count; i++, region += REGION_STRIDE) {
    if (iova - load<u64>(region, REGION_IOVA) < load<u64>(region, REGION_SIZE)) {
      regionsSeen += i;
      return (load<u32>(region, REGION_PERM) & perm) == perm ? region : 0;
    }
  }
  regionsSeen += count;
  return 0;
}

/** How many contiguous bytes `translate` found from its address on. */
export let contiguous: u32 = 0;

/**
 * The arena pointer of `iova` in the domain of queue `q`, 0 if it has none. `contiguous` then holds how many bytes,
 * up to `length`, lie behind it without a gap; a caller that needs more translates again from there. Remembers a
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
  contiguous = rest < <u64> length ? <u32> rest : length;
  if (load<u32>(region, REGION_PERM) & PERM_WRITE) {
    store<u64>(q, base, Q_REGION_IOVA);
    store<u64>(q, size, Q_REGION_SIZE);
    store<u32>(q, window, Q_REGION_WINDOW);
  }
  return window + <u32> offset;
}

/** The arena pointer of `length` contiguous bytes at `iova` (a ring), 0 if they are not all in one region. */
export function translateWhole(q: usize, iova: u64, length: u32, perm: u32): usize {
  const pointer = translate(q, iova, length, perm);
  return pointer != 0 && contiguous == length ? pointer : 0;
}
