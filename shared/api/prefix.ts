/** IP prefixes as text: read, normalised, and as the engine compares them. Without the schema library, as policy.ts. */
import ipaddr from "ipaddr.js";

/** The network part of a prefix, as text; undefined if it is none. */
export function normalisedPrefix(text: string): string | undefined {
  try {
    const [address, bits] = parse(text);
    const { kind, bytes, mask } = parts(address, bits);
    const network = ipaddr.fromByteArray(bytes.map((byte, i) => byte & (mask[i] ?? 0)));
    return bits === (kind === "ipv4" ? 32 : 128) ? network.toString() : `${network.toString()}/${bits}`;
  } catch {
    return undefined;
  }
}

type Address = ReturnType<typeof ipaddr.parse>;

function parse(text: string): [Address, number] {
  const [host = ""] = text.split("/");
  // What is short for an IPv4 address, or octal, such as 10.1, 010.0.0.1 or 167772161, is more often a mistake. IPv6
  // addresses are written as such, and what lies in them is no IPv4 address.
  const isWhole = host.includes(":") ? !host.includes(".") : ipaddr.IPv4.isValidFourPartDecimal(host);
  if (!isWhole) throw new Error(text);
  if (text.includes("/")) return ipaddr.parseCIDR(text);
  const address = ipaddr.parse(host);
  return [address, address.kind() === "ipv4" ? 32 : 128];
}

function parts(address: Address, bits: number): { kind: "ipv4" | "ipv6"; bytes: number[]; mask: number[] } {
  const bytes = address.toByteArray();
  const mask = bytes.map((_, i) => 0xff & ~(0xff >> Math.min(8, Math.max(0, bits - i * 8))));
  return { kind: address.kind(), bytes, mask };
}

/** IPv4 addresses stand as IPv4-mapped ones (RFC 4291, §2.5.5.2). */
const V4_MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/** A prefix as 16 bytes of address and 16 of mask; `text` is what IpPrefix answers. */
export function prefixBytes(text: string): Uint8Array {
  const [address, bits] = parse(text);
  const { kind, bytes, mask } = parts(address, bits);
  if (kind === "ipv6") return Uint8Array.from([...bytes, ...mask]);
  return Uint8Array.from([...V4_MAPPED, ...bytes, ...V4_MAPPED.map(() => 0xff), ...mask]);
}
