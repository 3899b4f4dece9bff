/** Queues that have work and could not be served now, though nobody is going to kick for them. */
import { CTL_RATE_BLOCKED } from "../../../shared/layout/nic.ts";
import { control } from "../context.ts";

/** Has the worker look again soon. */
export function lookAgain(): void {
  store<u32>(control(), load<u32>(control(), CTL_RATE_BLOCKED) + 1, CTL_RATE_BLOCKED);
}
