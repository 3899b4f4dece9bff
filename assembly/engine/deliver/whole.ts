/**
 * A whole record's frame into one buffer that has room for it: its head comes from the copy that was checked, and a checksum
 * that its sender left to be finished is finished here, unless the receiver accepts it so.
 */
import {
  HEAD_F_OFFLOAD,
  HEAD_INSERT,
  HEAD_MASK,
  HEAD_STRIP,
  N_HEAD,
  N_TAG,
  O_NEEDS,
  OFFLOAD_F_CSUM,
  Q_HDR_BYTES,
  Q_OFFLOADS,
  R_DATA,
  R_LENGTH,
} from "../../../shared/layout/nic.ts";
import { copyBytes } from "../../lib/copy.ts";
import { headCopyAt, headCopyBytes } from "../batch/record.ts";
import { finishChecksum } from "./finish.ts";
import { putOffload, putVirtioHeader } from "./virtio_header.ts";

/** Writes the frame of `record`, of delivery `at`, for receive queue `rx` to `buffer`, behind a virtio-net header. */
export function putWhole(rx: usize, at: usize, record: usize, buffer: usize): void {
  const head: u32 = load<u16>(at, N_HEAD);
  const hdrBytes = load<u32>(rx, Q_HDR_BYTES);
  putVirtioHeader(buffer, hdrBytes, 1);
  if ((head & HEAD_F_OFFLOAD) != 0) {
    const accepts: u32 = load<u16>(rx, Q_OFFLOADS);
    if ((accepts & OFFLOAD_F_CSUM) != 0) putOffload(buffer, record, head, accepts);
    else if (load<u32>(headCopyAt(record), O_NEEDS) != 0) finishChecksum(record);
  }
  putHead(buffer + hdrBytes, record, head & HEAD_MASK, load<u32>(at, N_TAG));
}

/** Writes the frame to `dst`, with what `what` says done to its tag. */
@inline
function putHead(dst: usize, record: usize, what: u32, tag: u32): void {
  const copy = headCopyAt(record);
  const known = headCopyBytes(record);
  let rest = dst + known;
  if (what == HEAD_INSERT) {
    v128.store(dst, v128.load(copy));
    store<u32>(dst, tag, 12);
    copyBytes(dst + 16, copy + 12, known - 12);
    rest += 4;
  } else if (what == HEAD_STRIP) {
    v128.store(dst, v128.load(copy));
    copyBytes(dst + 12, copy + 16, known - 16);
    rest -= 4;
  } else {
    copyBytes(dst, copy, known);
  }
  copyBytes(rest, load<u32>(record, R_DATA) + known, load<u32>(record, R_LENGTH) - known);
}
