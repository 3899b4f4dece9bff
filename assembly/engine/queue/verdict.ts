/** What a walk over a guest's descriptors answers: OK, or the reason to stop its queue, with a detail for the API. */
import {
  B_BAD_DETAIL,
  B_CONTIGUOUS,
  PERM_READ,
  Q_FLAGS,
  QUEUE_F_INDIRECT,
} from "../../../shared/layout/nic.ts";
import { VIRTQ_DESC_BYTES } from "../../../shared/layout/virtio.ts";
import { batch } from "../context.ts";
import { translate } from "./domain.ts";

/** Notes what was wrong, and answers the verdict. */
export function bad(verdict: u32, detail: u64): u32 {
  store<u64>(batch(), detail, B_BAD_DETAIL);
  return verdict;
}

/** Whether an indirect table may have so many bytes: it was negotiated, and is made of whole descriptors. */
export function isTable(q: usize, tableBytes: u32): bool {
  if ((load<u32>(q, Q_FLAGS) & QUEUE_F_INDIRECT) == 0) return false;
  return tableBytes != 0 && tableBytes % VIRTQ_DESC_BYTES == 0;
}

/** Entry `i` of an indirect table, 0 if it is not in the guest's memory. Each by itself: a table may cross regions. */
export function tableEntry(q: usize, table: u64, i: u32): usize {
  const entry = translate(q, table + <u64> i * VIRTQ_DESC_BYTES, VIRTQ_DESC_BYTES, PERM_READ);
  return load<u32>(batch(), B_CONTIGUOUS) == VIRTQ_DESC_BYTES ? entry : 0;
}
