/**
 * Guests without a VF: each has a port on the vhost service's software switch, with the same policy as a VF has in the
 * NIC. The PF keeps the list and programmes the switch with it, as it programmes the NIC.
 */
import { z } from "@hono/zod-openapi";
import { Latency } from "./latency.ts";
import { vfPolicyShape, VportMirror } from "./vf.ts";

/** Most vports; they are numbered from 0. */
export const VPORTS_MAX = 128;

/** A vport and its policy. */
export const Vport = z.strictObject({
  id: z.int().min(0).max(VPORTS_MAX - 1),
  ...vfPolicyShape,
  mirror: VportMirror.default(null),
  /** The VF that has been allotted to the guest, which drives it itself; null: none. */
  vf: z.int().min(0).nullable().default(null),
}).openapi("Vport");
export type Vport = z.output<typeof Vport>;

/** The PF's programme for the software switch. */
export const SwitchProgramme = z.strictObject({
  switchMode: z.enum(["veb", "vepa"]),
  link: z.enum(["up", "down"]),
  vports: z.array(Vport).max(VPORTS_MAX),
  drivesPf: z.boolean().default(true).openapi({
    description: "Whether the PF's pool is the switch's uplink; false: something of the host is behind it",
  }),
}).openapi("SwitchProgramme");
export type SwitchProgramme = z.output<typeof SwitchProgramme>;

/** What one vport has counted. */
export const VportState = z.object({
  id: z.int(),
  attached: z.boolean(),
  counters: z.record(z.string(), z.int()),
  latency: Latency.openapi({
    description: "How long what the guest sent waited in its ring until the software switch had delivered it, sampled",
  }),
}).openapi("VportState");
export type VportState = z.output<typeof VportState>;
