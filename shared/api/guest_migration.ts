/** A built-in guest on its way to another host: the seats at both ends, and how far the move is. */
import { z } from "@hono/zod-openapi";
import { Operation } from "./operation.ts";

/** What is so in the process of a built-in guest. */
export const GuestSeat = z.enum(["running", "leaving", "stopped", "gone", "waiting", "arriving", "arrived"]).openapi(
  "GuestSeat",
  {
    description:
      "running; leaving: it runs and is copied to another host; stopped: all of it has been sent; gone: it " +
      "runs where its address is; waiting: no guest is here; arriving: one is on its way; arrived: all of it is here, " +
      "and runs as soon as its address is this VF's",
  },
);
export type GuestSeat = z.output<typeof GuestSeat>;

/** How a guest is to leave. */
export const DepartureRequest = z.strictObject({
  maxDowntimeMs: z.number().min(1, "1–10000 ms").max(10_000, "1–10000 ms").default(20)
    .openapi({ description: "It is stopped as soon as the rest of it would take no longer than this" }),
  maxRateMbps: z.int().min(1, "1–100000 Mbit/s").max(100_000, "1–100000 Mbit/s").optional()
    .openapi({ description: "So much is sent at the most while it runs" }),
}).openapi("DepartureRequest");
export type DepartureRequest = z.input<typeof DepartureRequest>;

/** How far a guest is on its way out. */
export const Departure = Operation.pick({
  id: true,
  what: true,
  state: true,
  now: true,
  problem: true,
  startedAt: true,
  endedAt: true,
}).extend({
  transfer: z.object({
    rounds: z.int().openapi({ description: "Times that its pages have been looked through" }),
    bytesSent: z.int(),
    bytesTotal: z.int().openapi({ description: "What was sent, and what is left now" }),
    bytesRemaining: z.int().openapi({ description: "Of the round that is under way" }),
    bytesPerSecond: z.int(),
    expectedDowntimeMs: z.number().optional().openapi({ description: "If it were stopped now" }),
  }),
}).openapi("Departure");
export type Departure = z.output<typeof Departure>;

/** The right to say where a guest that has been stopped goes on. */
export const DepartureCommit = z.object({ key: z.string().max(64) }).openapi("DepartureCommit");
export type DepartureCommit = z.output<typeof DepartureCommit>;

/** A guest that has come. */
export const Arrival = z.object({
  seat: GuestSeat,
  mac: z.string().openapi({ description: "The address that the guest has" }),
  downtimeMs: z.number().optional().openapi({
    description: "For how long it was stopped, by the two hosts' wall clocks; once it runs",
  }),
}).openapi("Arrival");
export type Arrival = z.output<typeof Arrival>;
