/** Whether the driver of a packed ring wants an interrupt: its event suppression area (virtio 1.2 §2.8.10, §2.8.14). */
import {
  Q_AVAIL,
  Q_FLAGS,
  Q_SIGNALLED,
  Q_SIZE,
  Q_USED_IDX,
  Q_WRAP,
  QUEUE_F_EVENT_IDX,
  WRAP_SIGNALLED,
  WRAP_USED,
} from "../../../shared/layout/nic.ts";
import { RING_EVENT_FLAGS_DESC, RING_EVENT_FLAGS_DISABLE } from "../../../shared/layout/virtio.ts";

/** Slots for which the driver wants an interrupt that it has not had (§2.8.10); 0 if it wants none. */
export function wantedPacked(q: usize): u32 {
  const size = load<u32>(q, Q_SIZE);
  const idx = load<u32>(q, Q_USED_IDX);
  const wraps = load<u32>(q, Q_WRAP);
  const wrap: u32 = (wraps & WRAP_USED) != 0 ? 1 : 0;
  const signalledWrap: u32 = (wraps & WRAP_SIGNALLED) != 0 ? 1 : 0;
  // As distances in this lap: what lies in the lap before is below 0.
  const old = load<u32>(q, Q_SIGNALLED) - (signalledWrap == wrap ? 0 : size);
  const given = (idx - old) & 0xffff;
  const event = atomic.load<u32>(load<u32>(q, Q_AVAIL));
  // Two bits; the others are reserved (§2.8.14).
  const flags = (event >> 16) & 3;
  let wants = flags != RING_EVENT_FLAGS_DISABLE;
  if (flags == RING_EVENT_FLAGS_DESC && (load<u32>(q, Q_FLAGS) & QUEUE_F_EVENT_IDX) != 0) {
    const offset = (event & 0x7fff) - (((event >> 15) & 1) == wrap ? 0 : size);
    wants = ((idx - offset - 1) & 0xffff) < given;
  }
  if (wants) return given;
  interruptedPacked(q);
  return 0;
}

/** The driver has been interrupted for all that is published, or wants no interrupt for it. */
export function interruptedPacked(q: usize): void {
  const wraps = load<u32>(q, Q_WRAP);
  store<u32>(q, load<u32>(q, Q_USED_IDX), Q_SIGNALLED);
  store<u32>(q, (wraps & ~WRAP_SIGNALLED) | ((wraps & WRAP_USED) != 0 ? <u32> WRAP_SIGNALLED : 0), Q_WRAP);
}
