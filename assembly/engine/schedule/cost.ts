/**
 * The one currency: what work costs, in units that are about a nanosecond on a CPU of 2020 with warm caches. They are
 * calibrated with `deno task bench --only engine`: the rows there cost what is charged here, within a tenth. How long
 * a unit takes on this machine and today is measured all the time (schedule/clock.ts), for the counters.
 */
import { B_RECEIVE_UNITS, B_UNITS } from "../../../shared/layout/nic.ts";
import { batch } from "../context.ts";

/** A visit to a queue that has work, without its frames. */
export const UNITS_VISIT: u32 = 60;
/** A frame: gathered, decided, scattered, both its descriptors. */
export const UNITS_FRAME: u32 = 16;
/** What a frame costs that is not of one descriptor and one segment, beside those. */
export const UNITS_UNUSUAL: u32 = 30;
/** A segment that is cut off a frame, beside its delivery. */
export const UNITS_SEGMENT: u32 = 60;
/** A further descriptor, or segment, or receive buffer. */
export const UNITS_DESCRIPTOR: u32 = 6;
/** A step of the search among a guest's memory regions. */
export const UNITS_REGION: u32 = 4;
/** A receive queue that a batch has frames for. */
export const UNITS_GROUP: u32 = 40;
/** A decision that was not remembered. */
export const UNITS_DECISION: u32 = 50;
/** A pool that a flooded frame is considered for; its delivery is charged as a frame's. */
export const UNITS_FLOOD_POOL: u32 = 2;
/** 2^n bytes that are copied for a unit. */
export const UNITS_BYTES_SHIFT: u32 = 6;

/**
 * Walks through receive buffers that one visit may cost before more of them are refused (some hundred microseconds; 256
 * frames into chains of 17 descriptors in 64 regions cost half), and what each receiver may cost in any case.
 */
export const UNITS_RECEIVE_VISIT: u32 = 1 << 18;
export const UNITS_RECEIVE_GROUP: u32 = 1 << 14;

/** Charges the batch. */
@inline
export function spend(units: u32): void {
  const at = batch();
  store<u32>(at, load<u32>(at, B_UNITS) + units, B_UNITS);
}

/** Charges the batch for what its receiver makes the engine do, and notes it against the receiver. */
@inline
export function spendReceive(units: u32): void {
  const at = batch();
  store<u32>(at, load<u32>(at, B_UNITS) + units, B_UNITS);
  store<u32>(at, load<u32>(at, B_RECEIVE_UNITS) + units, B_RECEIVE_UNITS);
}
