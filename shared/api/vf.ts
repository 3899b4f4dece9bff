/**
 * A VF's policy: the words and limits of `ip link set DEV vf N …` (ip-link(8)) as JSON, with the reasons why something
 * is refused. Both the PF (which stores it) and the NIC (which has it in force) use these schemas.
 */
import { z } from "@hono/zod-openapi";
import { FRAME_BYTES_MAX, QUEUE_PAIRS_MAX } from "../layout/nic.ts";
import { ALLOWED_IPS_MAX, IpPrefix } from "./ip.ts";

/** Highest rate that can be set, in Mbit/s. */
const RATE_MBPS_MAX = 1_000_000;

const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/;

/** A unicast MAC address, normalised to lower case with colons. */
export const MacAddress = z.string()
  .transform((text) => text.toLowerCase().replaceAll("-", ":"))
  .refine((text) => MAC.test(text), { error: "is not a MAC address such as 02:00:00:00:00:01", abort: true })
  .refine((text) => (parseInt(text.slice(0, 2), 16) & 1) === 0, {
    error: "is a multicast address: a VF needs a unicast one (the first byte must be even)",
    abort: true,
  })
  .refine((text) => text !== "00:00:00:00:00:00", { error: "is all zero: a VF needs an address of its own" })
  .openapi({ type: "string", example: "02:52:46:00:00:01", description: "Unicast MAC address" });

const rate = z.int({ error: "must be a whole number of Mbit/s" }).min(0, "rates are 0 (none) or more Mbit/s")
  .max(RATE_MBPS_MAX, `rates are at most ${RATE_MBPS_MAX} Mbit/s`);

/** RFC 791's least, and the longest frame that the NIC takes without its Ethernet header and a tag. */
const MTU_MIN = 68;
export const MTU_MAX = FRAME_BYTES_MAX - 18;

const QUEUE_PAIRS = `from 1 to ${QUEUE_PAIRS_MAX} queue pairs`;

/** Multicast groups that the NIC can tell apart; whoever wants more gets all. */
export const MULTICAST_GROUPS_MAX = 30;

/** Multicast that a port receives: all of it, none, or that to these groups. */
export const Multicast = z.union([
  z.literal("all"),
  z.literal("none"),
  z.array(
    z.string().toLowerCase().regex(
      /^[0-9a-f][13579bdf](:[0-9a-f]{2}){5}$/,
      "is not a multicast MAC address such as 01:00:5e:00:00:fb",
    ),
  )
    .max(MULTICAST_GROUPS_MAX, `at most ${MULTICAST_GROUPS_MAX} multicast addresses`),
], { error: "is all, none, or a list of multicast MAC addresses" });
export type Multicast = z.output<typeof Multicast>;

/** Addresses that a port can have beside its own. */
const ALLOWED_MACS_MAX = 16;

const BROADCAST_RATE_MAX = 10_000_000;
const BROADCAST_RATES = `rates are 0 (no limit) to ${BROADCAST_RATE_MAX} frames a second`;

/** A list without doubles, in one order. */
function sortedList<S extends z.ZodType<string>>(element: S, most: number, of: string) {
  return z.array(element, { error: `is a list of ${of}` }).max(most, `at most ${most} ${of}`)
    .transform((list) => [...new Set(list)].sort());
}

/** How long an interrupt may be deferred, and how many frames it may stand for. */
const COALESCE_USECS_MAX = 10_000;
const COALESCE_FRAMES_MAX = 1024;

/** The interrupts of one direction, in the words of `ethtool -C`. */
function coalesceShape(what: string) {
  const usecs = `from 0 (interrupts are not deferred) to ${COALESCE_USECS_MAX} µs`;
  const frames = `from 1 to ${COALESCE_FRAMES_MAX} frames`;
  return {
    adaptive: z.boolean({ error: "is true or false" }).openapi({
      description: `Defers interrupts for ${what} at high rates only, by the rate, up to the limits beside it`,
    }),
    usecs: z.int({ error: "must be a whole number of µs" }).min(0, usecs).max(COALESCE_USECS_MAX, usecs)
      .openapi({ description: `µs that an interrupt for ${what} is deferred since the first; 0: not at all` }),
    frames: z.int({ error: "must be a whole number of frames" }).min(1, frames).max(COALESCE_FRAMES_MAX, frames)
      .openapi({ description: `Frames, of ${what}, after which it is raised at once` }),
  };
}
const rxCoalesce = coalesceShape("frames delivered");
const txCoalesce = coalesceShape("frames taken");

/** The fields of a VF's policy. */
export const vfPolicyShape = {
  mac: MacAddress,
  vlan: z.int({ error: "must be a whole number" }).min(0, "VLAN ids are 0–4094").max(4094, "VLAN ids are 0–4094")
    .openapi({ description: "VLAN that the PF puts the VF into (VST); 0: none" }),
  qos: z.int({ error: "must be a whole number" }).min(0, "priorities are 0–7").max(7, "priorities are 0–7")
    .openapi({ description: "802.1p priority of the VLAN tag" }),
  vlanProto: z.enum(["802.1Q", "802.1ad"], { error: "is 802.1Q or 802.1ad" }),
  trunk: z.array(
    z.int({ error: "must be whole numbers" }).min(1, "trunk VLAN ids are 1–4094").max(
      4094,
      "trunk VLAN ids are 1–4094",
    ),
  )
    .max(4094, "there are 4094 VLANs")
    .transform((list) => [...new Set(list)].sort((a, b) => a - b))
    .openapi({
      type: "array",
      items: { type: "integer" },
      description: "VLANs whose tags the guest may use (VGT) while vlan is 0",
    }),
  nativeVlan: z.int({ error: "must be a whole number" }).min(0, "VLAN ids are 0–4094").max(4094, "VLAN ids are 0–4094")
    .openapi({
      description: "VLAN of the frames that the guest sends and gets without a tag, while vlan is 0; 0: none",
    }),
  spoofCheck: z.boolean({ error: "is true or false" }),
  allowedMacs: sortedList(MacAddress, ALLOWED_MACS_MAX, "addresses").openapi({
    description: "Addresses that the VF has beside its own, such as those of VRRP",
  }),
  allowedIps: sortedList(IpPrefix, ALLOWED_IPS_MAX, "addresses and prefixes").openapi({
    description: "IP addresses that the guest may send from, in IPv4, IPv6 and ARP; none: all",
  }),
  trust: z.boolean({ error: "is true or false" })
    .openapi({ description: "May use any VLAN tag, add MAC addresses by using them, and be promiscuous" }),
  promisc: z.boolean({ error: "is true or false" })
    .openapi({ description: "Receives unicast frames of its VLANs that nobody has the address of; needs trust" }),
  linkState: z.enum(["auto", "enable", "disable"], { error: "is auto, enable or disable" }),
  minTxRate: rate.openapi({ description: "Mbit/s: share under contention, in proportion to the other VFs'" }),
  maxTxRate: rate.openapi({ description: "Mbit/s: limit; 0: none" }),
  maxBroadcastRate: z.int({ error: "must be a whole number of frames a second" }).min(0, BROADCAST_RATES)
    .max(BROADCAST_RATE_MAX, BROADCAST_RATES)
    .openapi({ description: "Broadcasts a second that the VF may send, others are dropped; 0: no limit" }),
  multicast: Multicast.openapi({ description: "Multicast that the VF may receive" }),
  guestMulticast: Multicast.nullable().openapi({
    description: "What its guest wants of it, and, while it is trusted, beyond it; null: the guest has not asked",
  }),
  mtu: z.int({ error: "must be a whole number of bytes" }).min(MTU_MIN, `MTUs are ${MTU_MIN}–${MTU_MAX}`)
    .max(MTU_MAX, `MTUs are ${MTU_MIN}–${MTU_MAX}`)
    .openapi({ description: "What a guest is told its MTU is, if its front-end passes that on" }),
  queuePairs: z.int({ error: "must be a whole number" }).min(1, QUEUE_PAIRS).max(QUEUE_PAIRS_MAX, QUEUE_PAIRS)
    .openapi({
      example: 4,
      description: "Queue pairs that a front-end is offered, the most that its guest can use. In force when the next " +
        "front-end connects: a guest that runs keeps what it was offered. With 16, a front-end that passes the " +
        "configuration space on without multiple queues (User-Mode Linux) is offered one",
    }),
  adaptiveRx: rxCoalesce.adaptive,
  rxUsecs: rxCoalesce.usecs,
  rxFrames: rxCoalesce.frames,
  adaptiveTx: txCoalesce.adaptive,
  txUsecs: txCoalesce.usecs,
  txFrames: txCoalesce.frames,
  macFixed: z.boolean({ error: "is true or false" })
    .openapi({ description: "The PF has set the address: a guest that is not trusted may not change it" }),
} as const;

/** Which hardware a VF presents to a guest that drives it itself. */
const VfHardware = z.enum(["any", "advanced", "virtio"], { error: "is any, advanced or virtio" });

const MIRRORS = "is such as both:3, in:3 or out:uplink, or null";
/** A mirror in the NIC. */
export const Mirror = z.string({ error: MIRRORS }).regex(/^(in|out|both):(uplink|\d{1,3})$/, MIRRORS).nullable();

const VPORT_MIRRORS = "is such as both:vport3, in:vport3 or out:vport3, or null: copies go to another vport";
/** A mirror in the software switch. */
export const VportMirror = z.string({ error: VPORT_MIRRORS }).regex(/^(in|out|both):vport\d{1,3}$/, VPORT_MIRRORS)
  .nullable().openapi({
    example: "both:vport3",
    description: "Which vport gets copies of the vport's frames, of those in to it, out of it, or both; null: none",
  });

/** What a VF has beside the policy that a vport has too. */
export const vfShape = {
  ...vfPolicyShape,
  hardware: VfHardware.openapi({ description: "Which rings a plugin may drive the VF with; any: as it asks" }),
  mirror: Mirror.openapi({
    example: "both:3",
    description:
      "Who gets copies of the VF's frames, of those in to it, out of it, or both: a VF or uplink; null: nobody",
  }),
} as const;

/** A VF's whole policy. */
export const VfPolicy = z.strictObject(vfShape).openapi("VfPolicy");
export type VfPolicy = z.output<typeof VfPolicy>;

/** When a port's driver is interrupted. */
export const Coalesce = VfPolicy.pick({
  ...{ adaptiveRx: true, rxUsecs: true, rxFrames: true, adaptiveTx: true, txUsecs: true, txFrames: true },
});
export type Coalesce = z.output<typeof Coalesce>;

/** A vport's whole policy. */
export const PortPolicy = z.strictObject(vfPolicyShape).openapi("PortPolicy");
export type PortPolicy = z.output<typeof PortPolicy>;

/** An address to have, or null for the one that the port begins with. */
const MacPatch = MacAddress.nullable().openapi({
  description: "null: the address that it begins with, which the guest may change",
});

/** The fields of a PATCH that all ports have. */
export const portPatchShape = { ...vfPolicyShape, mac: MacPatch } as const;

/** What a PATCH may hold. */
export const VfPatch = z.strictObject({ ...vfShape, mac: MacPatch }).partial().openapi("VfPatch");
export type VfPatch = z.output<typeof VfPatch>;
