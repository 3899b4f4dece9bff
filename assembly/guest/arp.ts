/** ARP (RFC 826): who has an address, who asks for ours, and telling everybody when ours moves. */
import {
  ARP_ASKED,
  ARP_AT_NS,
  ARP_COUNT,
  ARP_FREE,
  ARP_IP,
  ARP_KNOWN,
  ARP_MAC,
  ARP_STATE,
  ARP_STRIDE,
  ARP_TABLE,
  G_ARP_REPLIES,
  G_ARP_REQUESTS,
  GC,
  GC_GATEWAY,
  GC_IP,
  GC_MAC,
  GC_MASK,
  GC_NOW_NS,
} from "../../shared/layout/guest.ts";
import { count } from "./buffers.ts";
import { beginFrame, endFrame, linkHeaderBytes, setOutPair, writeLinkHeader } from "./frame.ts";

const ARP_BYTES: u32 = 28;
const ETHERTYPE_ARP: u32 = 0x0608;
const BROADCAST: u64 = 0xffffffffffff;
const RETRY_NS: f64 = 100e6;
/** A confirmed address is asked for again after this; it stays in use meanwhile. */
const REFRESH_NS: f64 = 30e9;
const PROBES: u32 = 16;

/** The entry of `ip`, or a place for it: the oldest of those that would do. */
function entryOf(ip: u32): usize {
  let oldest: usize = 0;
  for (let i: u32 = 0; i < PROBES; i++) {
    const entry: usize = ARP_TABLE + ((ip + i) & (ARP_COUNT - 1)) * ARP_STRIDE;
    if (load<u32>(entry, ARP_IP) == ip && load<u32>(entry, ARP_STATE) != ARP_FREE) return entry;
    if (oldest == 0 || load<f64>(entry, ARP_AT_NS) < load<f64>(oldest, ARP_AT_NS)) oldest = entry;
  }
  memory.fill(oldest, 0, ARP_STRIDE);
  store<u32>(oldest, ip, ARP_IP);
  return oldest;
}

/** Where frames for `ip` are to go; 0 if that is not known (yet: it is being asked for). */
export function resolve(ip: u32): u64 {
  const mask = load<u32>(GC, GC_MASK);
  if (ip == 0xffffffff || ip == (load<u32>(GC, GC_IP) | ~mask)) return BROADCAST;
  const local = (ip & mask) == (load<u32>(GC, GC_IP) & mask);
  const hop = local ? ip : load<u32>(GC, GC_GATEWAY);
  if (hop == 0) return 0;
  const entry = entryOf(hop);
  const now = load<f64>(GC, GC_NOW_NS);
  const known = load<u32>(entry, ARP_STATE) == ARP_KNOWN;
  const age = now - load<f64>(entry, ARP_AT_NS);
  if (known && age < REFRESH_NS) return load<u64>(entry, ARP_MAC);
  if (load<u32>(entry, ARP_STATE) == ARP_FREE || age >= (known ? REFRESH_NS : RETRY_NS)) {
    if (!known) store<u32>(entry, ARP_ASKED, ARP_STATE);
    store<f64>(entry, known ? now - REFRESH_NS + RETRY_NS : now, ARP_AT_NS);
    count(G_ARP_REQUESTS, 1);
    send(1, BROADCAST, 0, hop);
  }
  return known ? load<u64>(entry, ARP_MAC) : 0;
}

/** Tells everybody where our address is (RFC 5227 §2.3). */
export function announce(): void {
  const ip = load<u32>(GC, GC_IP);
  if (ip != 0) send(1, BROADCAST, 0, ip);
}

/** Forgets what is known: the network may be another one. */
export function forgetAddresses(): void {
  memory.fill(ARP_TABLE, 0, ARP_COUNT * ARP_STRIDE);
}

function send(operation: u32, dst: u64, targetMac: u64, targetIp: u32): void {
  setOutPair(0);
  const bytes = linkHeaderBytes() + ARP_BYTES;
  if (beginFrame(bytes) == 0) return;
  const at = writeLinkHeader(dst, ETHERTYPE_ARP);
  const mac = load<u64>(GC, GC_MAC);
  store<u32>(at, 0x00080100);
  store<u16>(at, 0x0406, 4);
  store<u16>(at, bswap<u16>(<u16> operation), 6);
  store<u32>(at, <u32> mac, 8);
  store<u16>(at, <u16> (mac >> 32), 12);
  store<u32>(at, bswap<u32>(load<u32>(GC, GC_IP)), 14);
  store<u32>(at, <u32> targetMac, 18);
  store<u16>(at, <u16> (targetMac >> 32), 22);
  store<u32>(at, bswap<u32>(targetIp), 24);
  endFrame(bytes);
}

/** Takes an ARP packet of `n` bytes. */
export function arpInput(at: usize, n: u32): void {
  if (n < ARP_BYTES || load<u32>(at) != 0x00080100 || load<u16>(at, 4) != 0x0406) return;
  const operation: u32 = bswap<u16>(load<u16>(at, 6));
  const senderMac = <u64> load<u32>(at, 8) | (<u64> load<u16>(at, 12) << 32);
  const senderIp = bswap<u32>(load<u32>(at, 14));
  const targetIp = bswap<u32>(load<u32>(at, 24));
  const ours = load<u32>(GC, GC_IP);
  if (senderIp == 0 || senderIp == ours || (senderMac & 1) != 0) return;
  const entry = entryOf(senderIp);
  // Merged if it is known or if we are meant: not everybody who shouts gets a place.
  if (load<u32>(entry, ARP_STATE) != ARP_FREE || targetIp == ours) {
    store<u64>(entry, senderMac, ARP_MAC);
    store<u32>(entry, ARP_KNOWN, ARP_STATE);
    store<f64>(entry, load<f64>(GC, GC_NOW_NS), ARP_AT_NS);
  }
  if (operation != 1 || targetIp != ours) return;
  count(G_ARP_REPLIES, 1);
  send(2, senderMac, senderMac, senderIp);
}
