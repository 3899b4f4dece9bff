/**
 * Uplinks: what of the host is behind the uplink's pool, the PF's, or a VF's. The NIC drives that pool itself, and moves
 * its frames to and from a TAP, an interface or a file. What is to be there is a spec; what became of it is a state.
 */
import { z } from "@hono/zod-openapi";
import ipaddr from "ipaddr.js";

/** IFNAMSIZ (linux/if.h) without its zero byte. */
const INTERFACE_CHARACTERS_MAX = 15;
const FILE_CHARACTERS_MAX = 4095;

/** A network interface's name, as the kernel takes it (dev_valid_name); % would make it a pattern, - an option of ip. */
const InterfaceName = z.string({ error: "is the name of an interface" })
  .min(1, "is empty: name an interface, such as rf0")
  .max(INTERFACE_CHARACTERS_MAX, `is too long: names of interfaces have at most ${INTERFACE_CHARACTERS_MAX} characters`)
  .regex(/^[^\s/:%\p{C}]*$/u, "cannot be a name: no slash, colon, percent sign or space is in those of interfaces")
  .refine((name) => name !== "." && name !== "..", "cannot be a name of an interface")
  .refine((name) => !name.startsWith("-"), "begins with a dash, as options do: choose another name");

/** Why `text` cannot be an address of an interface; none if it can. */
function addressFault(text: string): string | undefined {
  if (!text.includes("/")) return `has no prefix length: say ${text}/24, or whatever the network's is`;
  const [host = ""] = text.split("/");
  const isWhole = host.includes(":") ? !host.includes(".") : ipaddr.IPv4.isValidFourPartDecimal(host);
  if (!isWhole || !ipaddr.isValidCIDR(text)) return "is not an address such as 10.0.0.254/16 or fd00::fe/64";
  const [address, bits] = ipaddr.parseCIDR(text);
  if (bits < 1) return "has a prefix length of 0, which would take the host's whole traffic";
  if (address.range() === "multicast" || address.range() === "unspecified") return "cannot be an interface's address";
  const network = address.kind() === "ipv4"
    ? ipaddr.IPv4.networkAddressFromCIDR(text)
    : ipaddr.IPv6.networkAddressFromCIDR(text);
  const isNetwork = address.toString() === network.toString() && bits < address.toByteArray().length * 8 - 1;
  return isNetwork ? "is the network's own address: say one of a host in it" : undefined;
}

const InterfaceAddress = z.string({ error: "is an address such as 10.0.0.254/16" }).transform((text, context) => {
  const fault = addressFault(text);
  if (fault === undefined) return text;
  context.addIssue(fault);
  return z.NEVER;
}).openapi({ type: "string", example: "10.0.0.254/16", description: "The host's address in the guests' network" });

const FilePath = z.string({ error: "is a path" }).startsWith("/", "must be an absolute path")
  .max(FILE_CHARACTERS_MAX, "is too long").regex(/^[^\0]*$/, "cannot be a path");

/** What is to be behind a pool. */
export const UplinkSpec = z.discriminatedUnion("kind", [
  z.strictObject({
    kind: z.literal("tap"),
    name: InterfaceName.openapi({ description: "Made if it is not there" }),
    address: InterfaceAddress.optional(),
  }),
  z.strictObject({ kind: z.literal("packet"), interface: InterfaceName }),
  z.strictObject({
    kind: z.literal("xdp"),
    interface: InterfaceName,
    queue: z.int({ error: "must be a whole number" }).min(0, "queues are 0–1023").max(1023, "queues are 0–1023")
      .optional(),
  }),
  z.strictObject({
    kind: z.literal("pcap"),
    replay: FilePath.optional().openapi({ description: "Its frames come in from outside" }),
    record: FilePath.optional().openapi({ description: "Frames that go out are written to it" }),
    speed: z.enum(["paced", "full"], { error: "is paced or full" }).optional(),
    loop: z.boolean({ error: "is true or false" }).optional(),
  }).refine(({ replay, record }) => replay !== undefined || record !== undefined, {
    path: ["replay"],
    error: "say a file to replay, one to record, or both",
  }),
  z.strictObject({ kind: z.literal("none") }),
], { error: "kind is tap, packet, xdp, pcap or none" }).openapi("UplinkSpec");
export type UplinkSpec = z.output<typeof UplinkSpec>;

const SHORT_FORMS = "tap:NAME, packet:IFACE, xdp:IFACE, pcap:FILE or none";

/** Reads the short form of a spec: tap:NAME, packet:IFACE, xdp:IFACE, pcap:FILE or none. Throws, with what would do. */
export function parseUplinkSpec(text: string): UplinkSpec {
  const [, kind = "", rest] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  const made = shortForm(kind, rest);
  if (!made) throw new Error(`"${text}" is no uplink: say ${SHORT_FORMS}`);
  const parsed = UplinkSpec.safeParse(made);
  if (parsed.success) return parsed.data;
  if (rest === "") throw new Error(`"${text}" names nothing: say ${SHORT_FORMS}`);
  throw new Error(`uplink ${text}: ${rest ? `"${rest}" ` : ""}${parsed.error.issues[0]?.message}`);
}

function shortForm(kind: string, rest: string | undefined): Record<string, string> | undefined {
  if (kind === "none") return rest === undefined ? { kind } : undefined;
  const field = new Map([["tap", "name"], ["packet", "interface"], ["xdp", "interface"], ["pcap", "replay"]]).get(kind);
  return field === undefined || rest === undefined ? undefined : { kind, [field]: rest };
}

/** A spec as a person writes it. */
export function formatUplinkSpec(spec: UplinkSpec): string {
  switch (spec.kind) {
    case "tap":
      return `tap:${spec.name}`;
    case "packet":
    case "xdp":
      return `${spec.kind}:${spec.interface}`;
    case "pcap":
      return spec.replay === undefined ? `pcap, into ${spec.record}` : `pcap:${spec.replay}`;
    case "none":
      return "none";
  }
}

/** What became of a spec. */
export const UplinkState = z.object({
  spec: UplinkSpec,
  state: z.enum(["up", "down", "failed", "none"]),
  reason: z.string().optional().openapi({ description: "Why it is not up" }),
  interface: z.string().optional(),
  io: z.enum(["io_uring", "readv", "af_xdp", "file"]).optional().openapi({ description: "How its frames are moved" }),
  mtu: z.int().optional(),
  mac: z.string().optional(),
  counters: z.record(z.string(), z.int()),
  offloads: z.array(z.string()),
}).openapi("UplinkState");
export type UplinkState = z.output<typeof UplinkState>;
