/**
 * Reading ahead: the first lines of the frames that a batch is going to take, all at once. Another CPU has just written
 * them, so each is a wait for a cache line; asked for together they come together, asked for one by one in the gather's
 * loop each is waited for. There is no prefetch instruction in Wasm: the lines are read, and what was read is kept.
 */
import {
  B_PREFETCHED,
  Q_AVAIL,
  Q_DESC,
  Q_HDR_BYTES,
  Q_LAST_AVAIL,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_AVAIL_RING } from "../../../shared/layout/virtio.ts";
import { batch } from "../context.ts";
import { reachOf } from "./domain.ts";

/** Reads the first lines of the next `n` frames of split queue `q`, where they lie in the region that translated last. */
export function prefetchSplit(q: usize, n: u32): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const table: usize = load<u32>(q, Q_DESC);
  const ring: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const last = load<u32>(q, Q_LAST_AVAIL);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let sum: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const head: u32 = load<u16>(ring + ((last + i) & mask) * 2);
    const offset = load<u64>(table + ((head & mask) << 4)) - iova;
    if (offset < reach) sum += load<u64>(window + <usize> offset + hdrBytes) + load<u16>(window + <usize> offset);
  }
  store<u64>(batch(), sum, B_PREFETCHED);
}

/** As `prefetchSplit`, for rings of 16-byte descriptors that begin with their address: packed and advanced ones. */
export function prefetchRing(q: usize, n: u32): void {
  const size = load<u32>(q, Q_SIZE);
  const ring: usize = load<u32>(q, Q_DESC);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let slot = load<u32>(q, Q_LAST_AVAIL);
  let sum: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const offset = load<u64>(ring + slot * 16) - iova;
    if (offset < reach) sum += load<u64>(window + <usize> offset + hdrBytes) + load<u16>(window + <usize> offset);
    if (++slot == size) slot = 0;
  }
  store<u64>(batch(), sum, B_PREFETCHED);
}
