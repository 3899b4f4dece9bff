/**
 * A pool's policy as the bytes the engine reads: flags and tag, address, rate, VLAN bitmap, multicast table. They are
 * made before the engine stands still, and only those parts that differ from what is in force: the pause copies them.
 */
import * as L from "../layout/nic.ts";
import { coalesceOf, isLinkUp, mirrorOf, vlanKey } from "../api/policy.ts";
import { prefixBytes } from "../api/prefix.ts";
import type { Coalesce } from "../api/vf.ts";
import { macToNumber } from "./names.ts";
import type { Patch, PoolPolicy, PoolProgramme } from "./programme.ts";

/** How long a rate-limited pool may burst: long enough for the worker's millisecond of sleep. */
const BURST_SECONDS = 0.004;
const BURST_BYTES_MIN = 3036;
/** The same for broadcasts: a guest that starts asks for several addresses at once. */
const BROADCAST_BURST_SECONDS = 0.1;
const BROADCAST_BURST_MIN = 10;

type Link = PoolProgramme["link"];

/** What of a policy says which VLANs a pool is in. */
type Vlans = Pick<PoolPolicy, "vlan" | "vlanProto" | "trust" | "trunk" | "nativeVlan">;

/** A policy, and the NIC's link, which pools with linkState auto follow. */
interface InForce {
  policy: PoolPolicy | undefined;
  link: Link;
}

/** What to write into `pool`'s tables, so that they go from one policy to another. `nowNs` fills its token bucket. */
export function poolPatches(pool: number, before: InForce, next: InForce, nowNs: number): Patch[] {
  const { policy } = next;
  const old = before.policy;
  if (!policy) return old ? disabledPool(pool) : [];
  const at = L.POOLS + pool * L.POOL_STRIDE;
  const patches: Patch[] = [];
  const tags = tagWords(policy, next.link);
  if (!old || !isSameList(tagWords(old, before.link), tags)) {
    patches.push({ at: at + L.P_FLAGS, bytes: numbers(...tags) });
  }
  if (old?.mac !== policy.mac) patches.push({ at: at + L.P_MAC, bytes: macBytes(policy.mac) });
  // The bucket is the engine's to empty, so it is only written, full, when the rate changes.
  if (old?.maxTxRate !== policy.maxTxRate) patches.push({ at: at + L.P_RATE, bytes: rateBytes(policy, nowNs) });
  if (old?.maxBroadcastRate !== policy.maxBroadcastRate) {
    patches.push({ at: at + L.P_BROADCAST_RATE, bytes: broadcastBytes(policy, nowNs) });
  }
  if (!old || !isSameCoalesce(old, policy)) patches.push(coalescePatch(pool, policy));
  if (!old || nativeVlan(old) !== nativeVlan(policy)) {
    patches.push({ at: at + L.P_NATIVE, bytes: numbers(nativeVlan(policy)) });
  }
  patches.push(...mirrorPatches(pool, old?.mirror, policy.mirror));
  if (!old || !isSameList(old.allowedIps, policy.allowedIps)) {
    patches.push({ at: L.ADDRESS_TABLES + pool * L.ADDRESS_TABLE_STRIDE, bytes: addressTable(policy) });
    patches.push({ at: at + L.P_ADDRESS_COUNT, bytes: numbers(policy.allowedIps.length) });
  }
  if (!old || !hasSameVlans(old, policy)) {
    patches.push({ at: L.VLAN_BITMAPS + pool * L.VLAN_BITMAP_STRIDE, bytes: vlanBitmap(policy) });
  }
  if (!old || !hasSameMulticast(old, policy)) {
    patches.push({ at: L.MULTICAST_TABLES + pool * L.MULTICAST_TABLE_STRIDE, bytes: multicastTable(policy) });
  }
  return patches;
}

/** What to write so that the drivers of `pool`'s queues are interrupted as a policy says. */
export function coalescePatch(pool: number, policy: Coalesce): Patch {
  const bytes = new Uint8Array(2 * L.COALESCE_STRIDE);
  const view = new DataView(bytes.buffer);
  const put = (at: number, usecs: number, frames: number, isAdaptive: boolean) => {
    view.setFloat64(at, usecs * 1000, true);
    view.setUint32(at + L.COALESCE_FRAMES, frames, true);
    view.setUint32(at + L.COALESCE_FLAGS, isAdaptive ? L.COALESCE_ADAPTIVE : 0, true);
  };
  put(0, policy.rxUsecs, policy.rxFrames, policy.adaptiveRx);
  put(L.COALESCE_STRIDE, policy.txUsecs, policy.txFrames, policy.adaptiveTx);
  return { at: L.POOLS + pool * L.POOL_STRIDE + L.P_COALESCE, bytes };
}

/** What to write for the PF's pool, which has no policy: it is a member of every VLAN, and learns. */
export function pfPatches(): Patch[] {
  const flags = L.POOL_F_ENABLED | L.POOL_F_LINK_UP | L.POOL_F_TRUNK_ALL | L.POOL_F_LEARN | L.POOL_F_TRUST;
  const bitmap = new Uint8Array(L.VLAN_BITMAP_STRIDE).fill(0xff);
  return [
    { at: L.VLAN_BITMAPS + L.POOL_PF * L.VLAN_BITMAP_STRIDE, bytes: bitmap },
    { at: L.POOLS + L.POOL_PF * L.POOL_STRIDE + L.P_FLAGS, bytes: numbers(flags) },
  ];
}

type UplinkVlans = Pick<PoolProgramme, "uplinkTrunk" | "uplinkNativeVlan">;

/** What to write for the uplink's pool, so that it carries the VLANs of `next`. Nothing said: all of them. */
export function uplinkPatches(before: UplinkVlans | undefined, next: UplinkVlans): Patch[] {
  const [old, vlans] = [before && uplinkVlans(before), uplinkVlans(next)];
  if (old && hasSameVlans(old, vlans)) return [];
  const at = L.POOLS + L.POOL_UPLINK * L.POOL_STRIDE;
  const flags = L.POOL_F_ENABLED | L.POOL_F_LINK_UP | L.POOL_F_UPLINK | (vlans.trust ? L.POOL_F_TRUNK_ALL : 0);
  return [
    { at: at + L.P_FLAGS, bytes: numbers(flags) },
    { at: at + L.P_NATIVE, bytes: numbers(vlans.nativeVlan) },
    { at: L.VLAN_BITMAPS + L.POOL_UPLINK * L.VLAN_BITMAP_STRIDE, bytes: vlanBitmap(vlans) },
  ];
}

/** The uplink's VLANs as a VF has them: one that is trusted is a member of all. */
function uplinkVlans({ uplinkTrunk = "all", uplinkNativeVlan: nativeVlan = 0 }: UplinkVlans): Vlans {
  const isAll = uplinkTrunk === "all";
  return { vlan: 0, vlanProto: "802.1Q", nativeVlan, trust: isAll, trunk: isAll ? [] : uplinkTrunk };
}

/** A MAC as the engine compares it. */
export function macBytes(mac: string): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, macToNumber(mac), true);
  return bytes;
}

/** 32-bit numbers as they lie in the arena. */
export function numbers(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => view.setUint32(i * 4, value, true));
  return bytes;
}

/** Whether two lists have the same elements in the same order. */
function isSameList<T>(a: readonly T[], b: readonly T[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function hasSameVlans(a: Vlans, b: Vlans): boolean {
  return vlanKey(a) === vlanKey(b) && a.trust === b.trust && nativeVlan(a) === nativeVlan(b) &&
    isSameList(a.trunk, b.trunk);
}

function hasSameMulticast({ multicast: a }: PoolPolicy, { multicast: b }: PoolPolicy): boolean {
  return typeof a === "string" || typeof b === "string" ? a === b : isSameList(a, b);
}

function isSameCoalesce(a: Coalesce, b: Coalesce): boolean {
  return JSON.stringify(coalesceOf(a)) === JSON.stringify(coalesceOf(b));
}

function disabledPool(pool: number): Patch[] {
  return [
    { at: L.POOLS + pool * L.POOL_STRIDE + L.P_FLAGS, bytes: numbers(0) },
    { at: L.POOLS + pool * L.POOL_STRIDE + L.P_MIRROR, bytes: numbers(0) },
    { at: L.VLAN_BITMAPS + pool * L.VLAN_BITMAP_STRIDE, bytes: new Uint8Array(L.VLAN_BITMAP_STRIDE) },
  ];
}

/** P_FLAGS, P_VLAN and P_QOS. */
function tagWords(policy: PoolPolicy, link: Link): number[] {
  const flags = L.POOL_F_ENABLED |
    (policy.spoofCheck ? L.POOL_F_SPOOF_CHECK : 0) |
    (policy.trust ? L.POOL_F_TRUST : 0) |
    (policy.promisc && policy.trust ? L.POOL_F_PROMISC : 0) |
    (isLinkUp(policy.linkState, link) ? L.POOL_F_LINK_UP : 0) |
    (policy.fallback === "pf" ? L.POOL_F_FALLBACK_PF : 0) |
    (policy.fallback === "uplink" ? L.POOL_F_FALLBACK_UPLINK : 0) |
    (policy.multicast === "all" ? 0 : L.POOL_F_MULTICAST_FILTER);
  return [flags, vlanKey(policy), policy.qos];
}

/** P_RATE, P_TOKENS, P_TOKENS_AT_NS and P_BURST: a full bucket. */
function bucketBytes(perNs: number, burst: number, nowNs: number): Uint8Array {
  return new Uint8Array(Float64Array.of(perNs, burst, nowNs, burst).buffer);
}

function rateBytes({ maxTxRate }: PoolPolicy, nowNs: number): Uint8Array {
  const bytesPerNs = maxTxRate / 8000;
  return bucketBytes(bytesPerNs, Math.max(BURST_BYTES_MIN, bytesPerNs * BURST_SECONDS * 1e9), nowNs);
}

function broadcastBytes({ maxBroadcastRate }: PoolPolicy, nowNs: number): Uint8Array {
  const burst = Math.max(BROADCAST_BURST_MIN, maxBroadcastRate * BROADCAST_BURST_SECONDS);
  return bucketBytes(maxBroadcastRate / 1e9, burst, nowNs);
}

/** What to write so that `pool`, which has the mirror `old`, has `next`. */
export function mirrorPatches(pool: number, old: PoolPolicy["mirror"], next: PoolPolicy["mirror"]): Patch[] {
  const word = mirrorWord(next);
  if (mirrorWord(old) === word) return [];
  return [{ at: L.POOLS + pool * L.POOL_STRIDE + L.P_MIRROR, bytes: numbers(word) }];
}

/** P_MIRROR. */
function mirrorWord(spec: PoolPolicy["mirror"]): number {
  const mirror = mirrorOf(spec);
  if (!mirror) return 0;
  const ways = (mirror.in ? L.MIRROR_IN : 0) | (mirror.out ? L.MIRROR_OUT : 0);
  return ways | (mirror.to === "uplink" ? L.POOL_UPLINK : mirror.to);
}

/** The VLAN of a pool's untagged frames, where the pool sees tags. */
function nativeVlan({ vlan, nativeVlan }: Vlans): number {
  return vlan === 0 ? nativeVlan : 0;
}

/** The address table: each prefix, and which of its bits count. */
function addressTable({ allowedIps }: PoolPolicy): Uint8Array {
  const table = new Uint8Array(L.ADDRESS_TABLE_STRIDE);
  for (const [i, prefix] of allowedIps.entries()) table.set(prefixBytes(prefix), i * L.ADDRESS_STRIDE);
  return table;
}

/** The VLANs that a pool is a member of, by their keys. */
function vlanBitmap(policy: Vlans): Uint8Array {
  const bitmap = new Uint8Array(L.VLAN_BITMAP_STRIDE);
  if (policy.vlan !== 0) {
    setBit(bitmap, vlanKey(policy));
  } else if (policy.trust) {
    bitmap.fill(0xff);
    // Frames of no VLAN would be taken for those of the native one.
    if (policy.nativeVlan !== 0) bitmap[0] = 0xfe;
  } else {
    setBit(bitmap, policy.nativeVlan);
    for (const vid of policy.trunk) {
      setBit(bitmap, vid);
      setBit(bitmap, vid | L.VLAN_KEY_AD);
    }
  }
  return bitmap;
}

/** The multicast table: a bit for each value of twelve bits of the address (82599 datasheet §8.2.3.7.7, MO 00). */
function multicastTable({ multicast }: PoolPolicy): Uint8Array {
  const table = new Uint8Array(L.MULTICAST_TABLE_STRIDE);
  if (typeof multicast === "string") return table;
  for (const mac of multicast) setBit(table, Number(macToNumber(mac) >> 36n));
  return table;
}

function setBit(bitmap: Uint8Array, bit: number): void {
  bitmap[bit >> 3] = (bitmap[bit >> 3] ?? 0) | (1 << (bit & 7));
}
