/**
 * Reading ahead on the receive side: the first lines of the buffers that short frames are going to fill, as
 * batch/take.ts does for the frames themselves. A store waits for its line in turn, a read does not.
 */
import {
  B_READ_AHEAD,
  Q_AVAIL,
  Q_DESC,
  Q_HDR_BYTES,
  Q_REGION_IOVA,
  Q_REGION_SIZE,
  Q_REGION_WINDOW,
  Q_SIZE,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_AVAIL_RING } from "../../../shared/layout/virtio.ts";
import { batch } from "../context.ts";
import { reachOf } from "./domain.ts";

/** How many buffers are read ahead at a time. */
export const PREFETCH_BUFFERS: u32 = 32;

/**
 * Reads the first lines of `n` buffers of split queue `q` from ring position `position` on, where they lie in the region
 * that translated last.
 */
export function prefetchSplit(q: usize, position: u32, n: u32): void {
  const mask = load<u32>(q, Q_SIZE) - 1;
  const table: usize = load<u32>(q, Q_DESC);
  const ring: usize = load<u32>(q, Q_AVAIL) + VIRTQ_AVAIL_RING;
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let sum: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const head: u32 = load<u16>(ring + ((position + i) & mask) * 2);
    const descriptor = table + ((head & mask) << 4);
    const offset = load<u64>(descriptor) - iova;
    if (offset < reach) sum += load<u64>(window + <usize> offset + hdrBytes) + load<u16>(window + <usize> offset);
  }
  store<u64>(batch(), sum, B_READ_AHEAD);
}

/** As `prefetchSplit`, from slot `first` of a ring of 16-byte descriptors that begin with their address. */
export function prefetchRing(q: usize, first: u32, n: u32): void {
  const size = load<u32>(q, Q_SIZE);
  const ring: usize = load<u32>(q, Q_DESC);
  const iova = load<u64>(q, Q_REGION_IOVA);
  const reach = reachOf(load<u64>(q, Q_REGION_SIZE));
  const window: usize = load<u32>(q, Q_REGION_WINDOW);
  const hdrBytes = load<u32>(q, Q_HDR_BYTES);
  let slot = first;
  let sum: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const descriptor = ring + slot * 16;
    const offset = load<u64>(descriptor) - iova;
    if (offset < reach) sum += load<u64>(window + <usize> offset + hdrBytes) + load<u16>(window + <usize> offset);
    if (++slot == size) slot = 0;
  }
  store<u64>(batch(), sum, B_READ_AHEAD);
}
