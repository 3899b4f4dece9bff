/** What a guest may have of its own accord, as `ip link` and ixgbe have it. Pure: a wish in, a patch or an error out. */
import { addressesOfPort, ApiError, type LinkPatch, type PortPolicy, type VportPatch } from "../../shared/api/mod.ts";
import type { OwnPatch } from "./policy.ts";

/** What a granted wish changes. */
export type Granted = OwnPatch<VportPatch>;

/**
 * The change of policy that grants a wish: an address that the PF has not set and that nobody else begins with, VLANs of
 * the trunk list, multicast that the PF allows; everything else needs trust. Throws ApiError with the reason if it is
 * refused. `derivedOwner` says whose address one is before anyone sets it: that VF or vport may come later.
 */
export function grantWish(
  who: string,
  policy: PortPolicy,
  wish: LinkPatch,
  derivedOwner: (mac: string) => string | undefined,
): Granted {
  return {
    ...grantMac(who, policy, wish.mac, derivedOwner),
    ...grantUnicast(who, policy, wish.unicast),
    ...grantVlan(who, policy, wish.vlan),
    ...grantPromisc(who, policy, wish.promisc),
    ...grantMulticast(who, policy, wish.multicast),
  };
}

function grantMac(
  who: string,
  policy: PortPolicy,
  mac: LinkPatch["mac"],
  derivedOwner: (mac: string) => string | undefined,
): Granted {
  if (mac === undefined || mac === policy.mac) return {};
  const owner = derivedOwner(mac);
  if (owner !== undefined && owner !== who) {
    throw new ApiError(409, `${who} may not have the address ${mac}: it is kept for ${owner}`, "mac", "mac-fixed");
  }
  if (policy.macFixed && !policy.trust) {
    throw new ApiError(409, `${who} may not change its address: the PF has set ${policy.mac}`, "mac", "mac-fixed");
  }
  return { mac, macFixed: policy.macFixed };
}

/** Further addresses are the PF's to give; a trusted guest has them by using them. So a wish changes nothing. */
function grantUnicast(who: string, policy: PortPolicy, wanted: LinkPatch["unicast"]): Granted {
  const more = wanted?.filter((mac) => !addressesOfPort(policy).includes(mac)) ?? [];
  if (more.length === 0 || policy.trust) return {};
  const detail = `${who} may not have further addresses (${more.slice(0, 3).join(", ")}): it is not trusted`;
  throw new ApiError(409, detail, "unicast", "not-trusted");
}

/** A guest's own tag changes nothing of its policy: it is used, or refused. */
function grantVlan(who: string, { vlan, trust, trunk, nativeVlan }: PortPolicy, wanted: LinkPatch["vlan"]): Granted {
  if (wanted === undefined || wanted === 0) return {};
  if (vlan === 0 && wanted === nativeVlan) return {};
  if (vlan !== 0) {
    const detail = `${who} may not tag its frames: the PF has put it into VLAN ${vlan}`;
    throw new ApiError(409, detail, "vlan", "vlan-fixed");
  }
  if (!trust && !trunk.includes(wanted)) {
    const allowed = trunk.join(", ") || "none";
    const detail = `${who} may not use VLAN ${wanted}: its trunk list allows ${allowed}, and it is not trusted`;
    throw new ApiError(409, detail, "vlan", "vlan-not-allowed");
  }
  return {};
}

function grantPromisc(who: string, policy: PortPolicy, promisc: LinkPatch["promisc"]): Granted {
  if (promisc === undefined || promisc === policy.promisc) return {};
  if (promisc && !policy.trust) {
    throw new ApiError(409, `${who} may not be promiscuous: it is not trusted`, "promisc", "not-trusted");
  }
  return { promisc };
}

function grantMulticast(who: string, policy: PortPolicy, wanted: LinkPatch["multicast"]): Granted {
  if (wanted === undefined) return {};
  const isSame = JSON.stringify(wanted) === JSON.stringify(policy.guestMulticast);
  if (wanted === null) return isSame ? {} : { guestMulticast: null };
  const { multicast: allowed, trust } = policy;
  const isMore = allowed !== "all" && wanted !== "none" &&
    (wanted === "all" || wanted.some((group) => !allowed.includes(group)));
  if (isMore && !trust) {
    const detail = `${who} may not receive other multicast than the PF allows (${allowed}): it is not trusted`;
    throw new ApiError(409, detail, "multicast", "not-trusted");
  }
  return isSame ? {} : { guestMulticast: wanted };
}
