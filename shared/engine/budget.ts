/**
 * What guests may ask of an engine. A request's cost is the work that it makes for the engine and its control thread:
 * one unit for the pause, and one for each region of memory that has to be checked, mapped and unmapped.
 */
import { MEMORY_GONE } from "../layout/nic.ts";
import type { RequestInput } from "../device/mod.ts";
import { QUEUE_REASONS } from "./queue_state.ts";

/** One guest: a change of mode or a start takes some dozen units at once. */
export const GUEST_PACE = { perSecond: 1280, burst: 256 };
/** All guests of the guests' socket together, and all front-ends of all ports together. */
export const ALL_GUESTS_PACE = { perSecond: 5120, burst: 1024 };

/** Cost of a request of the device socket. */
export function requestCost(request: RequestInput): number {
  switch (request.op) {
    case "dmaSet":
      return 1 + request.regions.length;
    case "dmaMap":
    case "dmaUnmap":
    case "logStart":
    case "logStop":
      return 2;
    default:
      return 1;
  }
}

/**
 * Units that a guest waits for after its memory file was truncated. Each 2 MiB that the engine then touches is a signal
 * and a system call of its thread: milliseconds in a large memory.
 */
export const LOST_MEMORY_COST = 256;

/** Whether a queue stopped, for this reason, because its guest's memory was truncated. */
export function isMemoryLost(reason: string): boolean {
  return reason.startsWith(QUEUE_REASONS[MEMORY_GONE] as string);
}
