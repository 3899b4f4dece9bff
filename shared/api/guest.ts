/** The guest service's API: a virtual machine in miniature, with what is needed to look at a network and to load it. */
import { z } from "@hono/zod-openapi";
import { showable } from "./showable.ts";
import { MacAddress, Multicast } from "./vf.ts";

const ip = z.string({ error: "is an IPv4 address such as 10.0.0.2" })
  .regex(/^((25[0-5]|2[0-4]\d|1?\d?\d)(\.|$)){4}$/, "is an IPv4 address such as 10.0.0.2");

/** What to ping. */
export const PingRequest = z.strictObject({
  to: ip,
  count: z.int().min(1, "1–1000 echoes").max(1000, "1–1000 echoes").default(4),
  intervalMs: z.number().min(0).max(10_000).default(100),
  timeoutMs: z.number().min(1).max(60_000).default(1000).openapi({ description: "Wait for the last answer" }),
  size: z.int().min(0, "0–8900 bytes").max(8900, "0–8900 bytes").default(56).openapi({ description: "Payload bytes" }),
}).openapi("PingRequest");

/** How it went. */
export const PingResult = z.object({
  to: z.string(),
  sent: z.int(),
  received: z.int(),
  lost: z.int(),
  duplicates: z.int(),
  minUs: z.number().optional(),
  avgUs: z.number().optional(),
  maxUs: z.number().optional(),
  rttUs: z.array(z.number().nullable()).openapi({ description: "Each echo's round trip; null: no answer" }),
}).openapi("PingResult");
export type PingResult = z.output<typeof PingResult>;

/** Traffic to send: UDP probes with sequence numbers and times. */
export const TrafficRequest = z.strictObject({
  to: ip,
  rate: z.number().min(0).max(100_000_000).default(1000).openapi({ description: "Frames a second; 0: as many as go" }),
  size: z.int().min(70, "frames are 70–9014 bytes").max(9014, "frames are 70–9014 bytes").default(128)
    .openapi({ description: "Bytes of a frame, with its Ethernet header, without FCS" }),
  count: z.int().min(1).max(Number.MAX_SAFE_INTEGER).optional().openapi({ description: "Frames to send" }),
  seconds: z.number().min(0.001).max(86_400).optional(),
  port: z.int().min(1).max(65535).default(9),
  window: z.int().min(1).max(4096).optional()
    .openapi({ description: "With echo: so many frames may be on their way at a time" }),
  segment: z.boolean().default(false).openapi({
    description:
      "Frames that are due together are handed over as one of up to 64 KiB, which is cut into frames of `size` " +
      "by whoever does not take it whole; where the data path cannot (tx-segmentation), they go out one by one",
  }),
  echo: z.boolean().default(false).openapi({
    description: "To the echo service: the flow comes back, and is counted here",
  }),
}).openapi("TrafficRequest");
export type TrafficRequest = z.output<typeof TrafficRequest>;

/** What to capture. */
export const CaptureRequest = z.strictObject({
  seconds: z.number({ error: "is a number of seconds" }).gt(0, "more than 0 seconds").max(300, "at most 300 seconds")
    .default(10),
}).openapi("CaptureRequest");

/** A generator. */
export const GeneratorState = z.object({
  id: z.int(),
  flow: z.int().openapi({ description: "By this the receiver knows it" }),
  state: z.enum(["running", "done"]),
  to: z.string(),
  size: z.int(),
  segment: z.boolean(),
  rate: z.number(),
  sent: z.int(),
  sentRate: z.number(),
}).openapi("GeneratorState");
export type GeneratorState = z.output<typeof GeneratorState>;

/** What has come in of a generator. */
export const FlowState = z.object({
  flow: z.int(),
  from: z.string(),
  received: z.int(),
  lost: z.int().openapi({ description: "Sequence numbers that were skipped and have not come (yet)" }),
  duplicates: z.int(),
  reordered: z.int(),
  bytes: z.int(),
  rate: z.number(),
  longestGapUs: z.number().openapi({ description: "The longest time between two of its frames" }),
  latencyUs: z.object({
    min: z.number(),
    avg: z.number(),
    p50: z.number(),
    p99: z.number(),
    p999: z.number(),
    max: z.number(),
  }),
}).openapi("FlowState");
export type FlowState = z.output<typeof FlowState>;

/** Generators of this guest, and flows that it has received. */
export const TrafficState = z.object({
  generators: z.array(GeneratorState),
  flows: z.array(FlowState),
}).openapi("TrafficState");

/** What a data path does for the guest's stack, and what it leaves to it. */
export const GuestOffload = z.enum(["tx-checksum", "tx-segmentation", "rx-checksum", "rx-large"]).openapi(
  "GuestOffload",
);
export type GuestOffload = z.output<typeof GuestOffload>;

/** The guest's network interface. */
export const LinkState = z.object({
  mac: z.string(),
  ip: z.string(),
  mtu: z.int(),
  vlan: z.int().openapi({ description: "The guest's own tag; 0: none" }),
  up: z.boolean(),
  promisc: z.boolean(),
  multicast: Multicast,
  offloads: z.array(GuestOffload).openapi({
    description:
      "In use on the data path in use: it fills in checksums, cuts frames of several datagrams, delivers frames " +
      "whose checksums are good or not filled in, and frames of several segments",
  }),
}).openapi("LinkState");
export type LinkState = z.output<typeof LinkState>;

/** A guest's wishes for its interface. They go to the hypervisor, and are granted or refused with a reason. */
export const LinkPatch = z.strictObject({
  mac: MacAddress,
  unicast: z.array(MacAddress).max(4096).openapi({ description: "Further addresses that it wants to receive" }),
  vlan: z.int().min(0, "VLAN ids are 0–4094").max(4094, "VLAN ids are 0–4094"),
  promisc: z.boolean(),
  multicast: Multicast.nullable().openapi({ description: "null: it does not say (any more)" }),
}).partial().openapi("LinkPatch");
export type LinkPatch = z.output<typeof LinkPatch>;

/** Text of somebody who is not trusted. */
const foreignText = (charactersMax: number) =>
  z.string().max(charactersMax).transform((text) => showable(text, charactersMax));

/** Which data path the guest is on. Its hypervisor believes none of it where the NIC knows better. */
export const GuestMode = z.object({
  mode: z.enum(["emulated", "passthrough"]),
  plugin: foreignText(32).optional(),
  version: foreignText(32).optional(),
  connected: z.boolean().openapi({ description: "Whether the vhost-user back-end is there" }),
  lastFault: foreignText(1000).optional().openapi({ description: "Why the last plugin was ended" }),
}).openapi("GuestMode");
export type GuestMode = z.output<typeof GuestMode>;

/** How long a shell may take for a step of a change of mode, unless its hypervisor says otherwise. */
export const STEP_DEADLINE_MS = 2000;

/** By when a step has to be done; a plugin that holds it up is ended then. */
export const StepDeadline = z.strictObject({ deadlineMs: z.int().min(1).max(60_000) }).openapi("StepDeadline");

/** Where a plugin's image is to go in the guest's memory, and what is to come. */
export const PluginSlot = z.object({ address: z.int(), bytes: z.int() }).openapi("PluginSlot");

/** What the hypervisor tells the shell of the VF that is to be driven. */
export const PassthroughOrder = z.strictObject({
  vf: z.int().min(0),
  token: z.string().max(200),
}).openapi("PassthroughOrder");
