/**
 * A VF's policy in force: what a VF begins with, and what its fields mean together. Engines and services read policy
 * here; `vf.ts` has the schemas. This module loads no schema library: an engine's thread needs none.
 */
import { QUEUE_PAIRS_MAX } from "../layout/nic.ts";
import type { Coalesce, Multicast, VfPolicy } from "./vf.ts";

/** Ethernet's. */
export const MTU_DEFAULT = 1500;

const COALESCE_DEFAULT = { usecs: 50, frames: 64 };

/** What a port begins with. */
export const COALESCE_ADAPTIVE: Coalesce = {
  ...{ adaptiveRx: true, rxUsecs: COALESCE_DEFAULT.usecs, rxFrames: COALESCE_DEFAULT.frames },
  ...{ adaptiveTx: true, txUsecs: COALESCE_DEFAULT.usecs, txFrames: COALESCE_DEFAULT.frames },
};

/** When a policy has a port's driver interrupted. */
export function coalesceOf(policy: Coalesce): Coalesce {
  const { adaptiveRx, rxUsecs, rxFrames, adaptiveTx, txUsecs, txFrames } = policy;
  return { adaptiveRx, rxUsecs, rxFrames, adaptiveTx, txUsecs, txFrames };
}

/** Policy of a VF that nobody has configured. */
export function defaultPolicy(mac: string): VfPolicy {
  return {
    mac,
    vlan: 0,
    qos: 0,
    vlanProto: "802.1Q",
    trunk: [],
    nativeVlan: 0,
    allowedMacs: [],
    allowedIps: [],
    spoofCheck: true,
    trust: false,
    promisc: false,
    linkState: "auto",
    minTxRate: 0,
    maxTxRate: 0,
    maxBroadcastRate: 0,
    multicast: "all",
    guestMulticast: null,
    mtu: MTU_DEFAULT,
    queuePairs: QUEUE_PAIRS_MAX,
    ...COALESCE_ADAPTIVE,
    macFixed: false,
    hardware: "any",
    mirror: null,
  };
}

/** Who gets copies of which frames: the uplink, or a port of the same switch by its number. */
export function mirrorOf(
  mirror: string | null | undefined,
): { to: number | "uplink"; in: boolean; out: boolean } | undefined {
  const [way, to] = mirror?.split(":") ?? [];
  if (way === undefined || to === undefined) return undefined;
  return { to: to === "uplink" ? to : Number(to.replace("vport", "")), in: way !== "out", out: way !== "in" };
}

/** Multicast that a port receives: what the PF allows it and its guest wants; a trusted guest has what it wants. */
export function receivedMulticast(
  { multicast, guestMulticast, trust }: Pick<VfPolicy, "multicast" | "guestMulticast" | "trust">,
): Multicast {
  if (guestMulticast === null) return multicast;
  if (trust || multicast === "all") return guestMulticast;
  if (guestMulticast === "all" || multicast === "none") return multicast;
  return guestMulticast === "none" ? "none" : guestMulticast.filter((group) => multicast.includes(group));
}

/** All addresses that the PF gives a port. */
export function addressesOfPort({ mac, allowedMacs }: Pick<VfPolicy, "mac" | "allowedMacs">): string[] {
  return [...new Set([mac, ...allowedMacs])];
}

/** Whether a VLAN id is the VF's own, by VST or as an untagged member. */
export function vlanKey(policy: Pick<VfPolicy, "vlan" | "vlanProto">): number {
  return policy.vlan === 0 ? 0 : policy.vlan | (policy.vlanProto === "802.1ad" ? 0x1000 : 0);
}

/** The VLAN, as its key, of the frames that a port's guest sends and gets without a tag. */
export function untaggedVlan(policy: Pick<VfPolicy, "vlan" | "vlanProto" | "nativeVlan">): number {
  return policy.vlan === 0 ? policy.nativeVlan : vlanKey(policy);
}

/** Whether a port's guest has a carrier, while the NIC's own link is `link`. */
export function isLinkUp(linkState: VfPolicy["linkState"], link: "up" | "down"): boolean {
  return linkState === "enable" || (linkState === "auto" && link === "up");
}
