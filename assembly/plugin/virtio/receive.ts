/**
 * Received buffers become frames. A ring format takes in what its device has used, and puts each buffer into LIST_RX.
 * Here they are put together, several to a frame with mergeable buffers (§5.1.6.4). What is there of a frame is kept
 * until the rest has come.
 */
import * as P from "../../../shared/layout/plugin.ts";
import * as V from "../../../shared/layout/virtio.ts";
import * as B from "./books.ts";
import * as S from "./state.ts";

/** num_buffers of the virtio-net header. */
const NUM_BUFFERS: usize = 10;
const PENDING_STRIDE: u32 = P.LIST_MAX * 4;
/** The entry's flags wait behind the number of buffers. */
const FLAGS_SHIFT: u64 = 48;

/** Flags of the entry of a frame with this header: what its sender has left to be done, or that nothing is (§5.1.6.4). */
@inline
function flagsOf(header: usize): u64 {
  if (!S.takesUnfinished) return 0;
  const word: u32 = load<u16>(header);
  if ((word & ~V.VIRTIO_NET_HDR_F_DATA_VALID) == 0) return word != 0 ? P.ENTRY_CSUM_VALID : 0;
  return P.ENTRY_NET_HDR;
}

/**
 * Puts a used buffer into place `n` of LIST_RX. Entries are written as two words, which is how they are read again. The
 * number of a frame's buffers is read here, and waits in the place of the entry's flags: the device has just written
 * it, and when many such reads are asked for at once they come together.
 */
@inline
export function put(n: u32, buffer: u32, length: u32): void {
  const entry: usize = P.LIST_RX + n * P.ENTRY_BYTES;
  const bytes = min(length, S.rxBytes);
  const header: usize = P.PLUGIN_BUFFERS + buffer * P.PLUGIN_BUFFER_BYTES + S.rxOffset;
  if (S.mergeable) {
    store<u64>(entry, <u64> buffer | (<u64> S.rxOffset << 32));
    store<u64>(entry, <u64> bytes | (<u64> load<u16>(header, NUM_BUFFERS) << 32) | (flagsOf(header) << FLAGS_SHIFT), 8);
  } else {
    const skip = min(S.hdrBytes, bytes);
    const flags = bytes < S.hdrBytes ? 0 : flagsOf(header);
    store<u64>(entry, <u64> buffer | (<u64> (S.rxOffset + skip) << 32));
    store<u64>(entry, <u64> (bytes - skip) | ((flags | P.ENTRY_EOP) << 32), 8);
  }
}

@inline
function pendingOf(queue: u32): usize {
  return B.PENDING + (queue >> 1) * PENDING_STRIDE;
}

/** Puts the buffers of a frame that was not complete at the beginning of LIST_RX; answers how many. */
export function putPending(queue: u32): u32 {
  const state = S.stateOf(queue);
  const n = load<u32>(state, S.PENDING);
  for (let i: u32 = 0; i < n; i++) {
    const word = load<u32>(pendingOf(queue) + i * 4);
    put(i, word & (P.PLUGIN_BUFFER_COUNT - 1), word >> 16);
  }
  store<u32>(state, 0, S.PENDING);
  return n;
}

/** Keeps the buffers in places `from` to `end` of LIST_RX. */
function keep(queue: u32, from: u32, end: u32): void {
  for (let i = from; i < end; i++) {
    const entry: usize = P.LIST_RX + i * P.ENTRY_BYTES;
    const bytes = <u32> load<u64>(entry, 8);
    store<u32>(pendingOf(queue) + (i - from) * 4, (<u32> load<u64>(entry)) | (bytes << 16));
  }
  store<u32>(S.stateOf(queue), end - from, S.PENDING);
}

/** Makes frames of the `n` buffers in LIST_RX; answers how many of them are in whole frames. */
export function makeFrames(queue: u32, n: u32): u32 {
  let i: u32 = 0;
  while (i < n) {
    const entry: usize = P.LIST_RX + i * P.ENTRY_BYTES;
    const word = load<u64>(entry, 8);
    // A device that says 0 means 1. One that names more buffers than a frame can have breaks the protocol; one that
    // names more than there are has not finished.
    const buffers = max<u32>(<u32> (word >> 32) & 0xffff, 1);
    if (buffers > min(S.size, <u32> P.LIST_MAX)) {
      S.giveUp(S.stateOf(queue));
      break;
    }
    if (buffers > n - i) break;
    const bytes = <u32> word;
    const skip = min(S.hdrBytes, bytes);
    // A header that is not whole says nothing.
    const flags: u64 = bytes < S.hdrBytes ? 0 : word >> FLAGS_SHIFT;
    store<u64>(entry, load<u64>(entry) + (<u64> skip << 32));
    store<u64>(entry, <u64> (bytes - skip) | ((buffers == 1 ? flags | P.ENTRY_EOP : flags) << 32), 8);
    for (let k: u32 = 1; k < buffers; k++) {
      store<u32>(entry + k * P.ENTRY_BYTES, k + 1 == buffers ? P.ENTRY_EOP : 0, P.ENTRY_FLAGS);
    }
    i += buffers;
  }
  if (i < n) keep(queue, i, n);
  return i;
}

/** Reports that the device broke the protocol, behind the `n` entries that are reported already. */
export function reportBrokenFrame(n: u32, room: u32): u32 {
  if (n >= room) return n;
  const entry: usize = P.LIST_RX + n * P.ENTRY_BYTES;
  store<u64>(entry, <u64> P.NO_BUFFER);
  store<u64>(entry, <u64> P.ENTRY_EOP << 32, 8);
  return n + 1;
}
