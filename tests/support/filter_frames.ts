/** A few frames that capture filters tell from each other: protocols, addresses, ports, tags, and ones that are dropped. */
import { frame } from "./mock_guest.ts";

const IPV4 = 0x0800;
const IPV6 = 0x86dd;
const ARP = 0x0806;

const OTHER = "02:99:99:99:99:99";
/** The VLAN that the sender may use. */
export const VLAN = 7;

const bytes = (text: string) => text.split(".").map(Number);

function ipv4(protocol: number, [src, dst]: [string, string], rest: number[], fragment = 0): Uint8Array {
  const length = 20 + rest.length;
  const head = [0x45, 0, length >> 8, length & 0xff, 0, 0, fragment >> 8, fragment & 0xff, 64, protocol, 0, 0];
  return Uint8Array.from([...head, ...bytes(src), ...bytes(dst), ...rest]);
}

/** As `ipv4`; fe80::`src` to fe80::`dst`, behind a hop-by-hop header. */
function ipv6(protocol: number, [src, dst]: [number, number], rest: number[]): Uint8Array {
  const address = (last: number) => [0xfe, 0x80, ...new Array(13).fill(0), last];
  const hop = [protocol, 0, 1, 4, 0, 0, 0, 0];
  return Uint8Array.from([0x60, 0, 0, 0, 0, 8 + rest.length, 0, 64, ...address(src), ...address(dst), ...hop, ...rest]);
}

const ports = (src: number, dst: number) => [src >> 8, src & 0xff, dst >> 8, dst & 0xff, ...new Array(20).fill(0)];
const arp = Uint8Array.from([
  ...[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, ...bytes("10.0.0.1")],
  ...[0, 0, 0, 0, 0, 0, ...bytes("10.0.0.9")],
]);

/**
 * The frames, by a letter each; all go from `source` to `destination` but where their letter says otherwise. `s` is
 * somebody else's, `d` has a VLAN that its sender may not use.
 */
export function filterFrames(source: string, destination: string): Record<string, Uint8Array> {
  const made = Object.entries({
    t: { etherType: IPV4, payload: ipv4(6, ["10.0.0.1", "10.0.0.2"], ports(1000, 22)) },
    u: { etherType: IPV4, payload: ipv4(17, ["10.0.0.1", "10.1.0.2"], ports(53, 5353)) },
    // A fragment that is not the first: what lies where ports would is no port.
    f: { etherType: IPV4, payload: ipv4(17, ["10.0.0.3", "10.1.0.2"], ports(53, 53), 100) },
    i: { etherType: IPV4, payload: ipv4(1, ["192.168.1.1", "10.0.0.2"], [8, 0, 0, 0, 0, 0, 0, 0]) },
    "6": { etherType: IPV6, payload: ipv6(6, [1, 2], ports(22, 40_000)) },
    n: { etherType: IPV6, payload: ipv6(58, [1, 3], [135, 0, 0, 0]) },
    a: { etherType: ARP, payload: arp, dst: "ff:ff:ff:ff:ff:ff" },
    v: { etherType: IPV4, payload: ipv4(6, ["10.0.0.1", "10.0.0.2"], ports(80, 22)), tags: [{ vid: VLAN }] },
    m: { etherType: 0x88b5, dst: "01:00:5e:00:00:05" },
    x: { etherType: 0x88b5 },
    s: { etherType: 0x88b5, src: OTHER },
    d: { etherType: 0x88b5, tags: [{ vid: 9 }] },
  }).map(([name, options]): [string, Uint8Array] => [name, frame({ src: source, dst: destination, ...options })]);
  return Object.fromEntries(made);
}
