/**
 * What QEMU 7.2 sends when it stops a vhost-user network device and starts it again, message by message, as its own
 * back-end saw it. `stop`, `set_link off` and `system_reset` stop the device alike; `cont` and `set_link on` start it
 * alike. Each queue pair is stopped by itself, and SET_STATUS 0 goes out when the last one is due: before the
 * GET_VRING_BASE of its rings.
 */
import { createEventFd, signalEventFd } from "../../shared/os/mod.ts";
import { type FrontEnd, u64, vringAddress, vringState } from "./front_end.ts";

const FEATURES_OK = 8n;
const DRIVER_OK_AND_ALL_BEFORE = 15n;

/** A message that stops all rings at once: QEMU 7.2's, or one of those that mean the same. */
type Reset = "VHOST_USER_SET_STATUS" | "VHOST_USER_RESET_OWNER" | "VHOST_USER_RESET_DEVICE";
export const RESETS: readonly Reset[] = ["VHOST_USER_SET_STATUS", "VHOST_USER_RESET_OWNER", "VHOST_USER_RESET_DEVICE"];

/** Sends a reset. */
export function reset(front: FrontEnd, request: Reset): void {
  front.send(request, request === "VHOST_USER_SET_STATUS" ? u64(0n) : undefined);
}

/** Stops the device; answers the base of each ring. */
export async function stopAsQemu(front: FrontEnd, request: Reset = "VHOST_USER_SET_STATUS"): Promise<number[]> {
  const bases: number[] = [];
  for (const index of front.guest.queues.keys()) {
    if (index === front.guest.queues.length - 2) reset(front, request);
    bases.push(await front.stopVring(index));
  }
  return bases;
}

/** Starts the device with its rings at `bases`; returns when all rings have been described. */
export async function startAsQemu(front: FrontEnd, bases: readonly number[]): Promise<void> {
  for (const [index, queue] of front.guest.queues.entries()) {
    if (index % 2 === 0) {
      for (const ring of [index, index + 1]) front.send("VHOST_USER_SET_VRING_ENABLE", vringState(ring, 1));
      front.send("VHOST_USER_SET_FEATURES", u64(front.features));
      await front.ask("VHOST_USER_GET_STATUS");
    }
    if (index === 0) front.send("VHOST_USER_SET_STATUS", u64(FEATURES_OK));
    // QEMU creates the kick eventfd anew each time, with its counter at 1.
    front.kicks[index]?.close();
    const kick = front.kicks[index] = createEventFd();
    signalEventFd(kick.number);
    const at = vringAddress(index, front.user(queue.desc), front.user(queue.used), front.user(queue.avail));
    front.send("VHOST_USER_SET_VRING_NUM", vringState(index, queue.size));
    front.send("VHOST_USER_SET_VRING_BASE", vringState(index, bases[index] ?? 0));
    front.send("VHOST_USER_SET_VRING_ADDR", at);
    front.send("VHOST_USER_SET_VRING_KICK", u64(BigInt(index)), [kick.number]);
    front.send("VHOST_USER_SET_VRING_CALL", u64(BigInt(index)), [front.calls[index]?.number ?? -1]);
  }
  await front.ask("VHOST_USER_GET_STATUS");
  front.send("VHOST_USER_SET_STATUS", u64(DRIVER_OK_AND_ALL_BEFORE));
  await front.ask("VHOST_USER_GET_STATUS");
}
