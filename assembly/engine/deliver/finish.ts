/**
 * Finishing a checksum for a receiver that does not take frames without one. It is filled into the copy of the frame's
 * head, so it is done once: those that get the frame after that get it finished too.
 */
import {
  O_HEADER,
  O_NEEDS,
  R_LENGTH,
  SEGMENT_STRIDE,
} from "../../../shared/layout/nic.ts";
import {
  VIRTIO_NET_HDR_CSUM_OFFSET,
  VIRTIO_NET_HDR_CSUM_START,
  VIRTIO_NET_HDR_F_DATA_VALID,
} from "../../../shared/layout/virtio.ts";
import { fold, sum } from "../../lib/checksum.ts";
import { copiedHead, headCopyAt, headCopyBytes } from "../batch/record.ts";
import { transportOf } from "../batch/transport.ts";
import { spend, UNITS_BYTES_SHIFT } from "../schedule/cost.ts";
import { segmentsOf } from "./head.ts";

/** Where the checksum lies in a UDP header. */
const UDP_CHECKSUM: u32 = 6;

/** Finishes the checksum of a record's frame, which asks for it and is not to be cut. */
export function finishChecksum(record: usize): void {
  const area = headCopyAt(record);
  const start: u32 = load<u16>(area, O_HEADER + VIRTIO_NET_HDR_CSUM_START);
  const field = start + <u32> load<u16>(area, O_HEADER + VIRTIO_NET_HDR_CSUM_OFFSET);
  const copy = copiedHead(record, field + 2);
  storeChecksum(record, copy, start, field);
  // A sum deeper inside, as in a tunnel, says nothing of the frame's own.
  const isOwn = transportOf(copy, headCopyBytes(record)) == start;
  store<u64>(area, isOwn ? VIRTIO_NET_HDR_F_DATA_VALID : 0, O_HEADER);
  store<u32>(area, 0, O_HEADER + 8);
  store<u32>(area, 0, O_NEEDS);
}

/**
 * Stores the checksum of a record's frame from byte `start` to its end at byte `field` of its head's copy, which holds
 * what is to be summed with it. In UDP's place a checksum of 0 is stored as 0xffff, which is the same number: to UDP, 0
 * says that there is none.
 */
export function storeChecksum(record: usize, copy: usize, start: u32, field: u32): void {
  const checksum = fold(sumFrom(record, start));
  store<u16>(copy + field, checksum == 0 && field - start == UDP_CHECKSUM ? 0xffff : <u16> checksum);
}

/** The sum of a record's frame from byte `start`, which its head's copy has, to its end. */
function sumFrom(record: usize, start: u32): u64 {
  const length = load<u32>(record, R_LENGTH);
  const known = headCopyBytes(record);
  spend((length - start) >> UNITS_BYTES_SHIFT);
  let total = sum(headCopyAt(record) + start, known - start, 0);
  let odd = ((known - start) & 1) != 0;
  let segment = segmentsOf(record);
  let pass = known;
  let left = length - known;
  while (left > 0) {
    const there = load<u32>(segment, 4);
    if (there > pass) {
      const part = min(there - pass, left);
      const piece = sum(load<u32>(segment) + pass, part, 0);
      total += odd ? swapped(piece) : piece;
      odd = odd != ((part & 1) != 0);
      left -= part;
      pass = 0;
    } else {
      pass -= there;
    }
    segment += SEGMENT_STRIDE;
  }
  return total;
}

/** The sum of bytes that begin in the middle of a word (RFC 1071 §2 (B)). */
function swapped(piece: u64): u64 {
  return <u64> bswap<u16>(<u16> (fold(piece) ^ 0xffff));
}
