/** How an emulated guest's frames go between it and its VF. */
import { z } from "@hono/zod-openapi";

/**
 * How frames go in emulated mode: `copy`, through the vhost service's buffers; `zerocopy`, the guest's own buffers are on the
 * VF's queues; `headersplit`, as that, but what is received has its headers copied from the vhost service's buffers.
 */
export const EmulatedPath = z.enum(["copy", "zerocopy", "headersplit"], { error: "is copy, zerocopy or headersplit" })
  .openapi("EmulatedPath");
export type EmulatedPath = z.output<typeof EmulatedPath>;

/** Frames of a guest in emulated mode, since its data path was chosen: how many were copied by the vhost service. */
export const PathFrames = z.object({
  sentDirect: z.int(),
  sentCopied: z.int().openapi({ description: "In more pieces than the NIC takes, or of a driver with short headers" }),
  receivedDirect: z.int(),
  receivedCopied: z.int().openapi({ description: "The guest had no buffer when they came, or none of one piece" }),
}).openapi("PathFrames");
export type PathFrames = z.output<typeof PathFrames>;
