/** Queues that have work and could not be served now, though nobody is going to kick for them. */
import { CTL_RATE_BLOCKED } from "../../../shared/layout/nic.ts";
import { control } from "../context.ts";

/** Those of them that wait for room which somebody else makes, any moment or never. */
let forRoom: u32 = 0;

/** A pass begins: nobody waits yet. */
export function beginLooks(): void {
  store<u32>(control(), 0, CTL_RATE_BLOCKED);
  forRoom = 0;
}

/** Has the worker look again soon. */
export function lookAgain(): void {
  store<u32>(control(), load<u32>(control(), CTL_RATE_BLOCKED) + 1, CTL_RATE_BLOCKED);
}

/** As `lookAgain`, for room. */
export function lookForRoom(): void {
  forRoom++;
  lookAgain();
}

/** Whether a queue waited for room in the last pass. */
export function waitsForRoom(): bool {
  return forRoom != 0;
}
