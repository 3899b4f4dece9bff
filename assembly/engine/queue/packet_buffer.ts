/** Packet buffers: which pools' hold frames, and which pools' drivers were overrun and have none. */
import {
  BUFFERED_LIST,
  CTL_BUFFERED_COUNT,
  CTL_EVENT_COUNT,
  P_BUFFERED,
  P_OVERRUN,
  Q_RELEASED,
  Q_USED_IDX,
} from "../../../shared/layout/nic.ts";
import { context, control } from "../context.ts";

/** Whether everything that the packet buffer `buffer` took has been handed on. */
@inline
export function isBufferEmpty(buffer: usize): bool {
  return load<u32>(buffer, Q_USED_IDX) == load<u32>(buffer, Q_RELEASED);
}

/** Lists the pool `p`, number `pool`, among those whose packet buffers hold frames. */
export function noteBuffered(p: usize, pool: u32): void {
  if (load<u32>(p, P_BUFFERED) != 0) return;
  store<u32>(p, 1, P_BUFFERED);
  const count = load<u32>(control(), CTL_BUFFERED_COUNT);
  store<u32>(context + BUFFERED_LIST + count * 4, pool);
  store<u32>(control(), count + 1, CTL_BUFFERED_COUNT);
}

/** Tells the control thread, once, that the pool `p` drops frames and has no packet buffer. */
export function noteOverrun(p: usize): void {
  if (load<u32>(p, P_OVERRUN) != 0) return;
  store<u32>(p, 1, P_OVERRUN);
  store<u32>(control(), load<u32>(control(), CTL_EVENT_COUNT) + 1, CTL_EVENT_COUNT);
}
