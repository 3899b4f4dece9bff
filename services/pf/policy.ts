/**
 * What may be set together: the rules that no single field can tell. They are those of `ip link set vf` and of the PF
 * drivers behind it, with reasons a person can act on. Pure: settings in, settings or an error out.
 */
import {
  addressesOfPort,
  ApiError,
  fixedFields,
  type NicPatch,
  policyTag,
  type PortPolicy,
  type Role,
  uplinkMac,
  type VfPatch,
  type VfPolicy,
  vlanKey,
  type Vport,
  type VportPatch,
} from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";
import {
  isMirrored,
  mustKeepMirrors,
  mustLeaveMirrors,
  mustMirrorLawfully,
  mustMirrorPfLawfully,
  mustMirrorVportLawfully,
} from "./mirror_rules.ts";
import { mustHaveSwitch, mustKeepBound } from "./uplink_rules.ts";

/** A patch whose address is one. */
export type OwnPatch<P extends { mac?: unknown }> = Omit<P, "mac"> & { mac?: string | undefined };

/** Throws unless a policy is the one that somebody has read who wants to change it (RFC 9110, If-Match). */
export function mustMatch(policy: PortPolicy, ifMatch: string | undefined): void {
  if (ifMatch === undefined || ifMatch.trim() === "*") return;
  if (ifMatch.split(",").map((tag) => tag.trim()).includes(policyTag(policy))) return;
  throw new ApiError(412, "the policy has changed since it was read: read it again", "if-match", "changed-meanwhile");
}

/** Throws if a patch would change what whoever asks may not; what is as it was may be said. */
export function mustBeOwn(by: Role | undefined, before: VfPolicy, patch: VfPatch): void {
  for (const field of by ? fixedFields(by) : []) {
    const wanted = patch[field as keyof VfPatch];
    if (wanted === undefined || JSON.stringify(wanted) === JSON.stringify(before[field as keyof VfPolicy])) continue;
    const detail =
      `cannot set ${field} with a VF's own token: it reaches into somebody else's port. An operator may; ` +
      `leave ${field} out, or say what it is: ${JSON.stringify(before[field as keyof VfPolicy])}`;
    throw new ApiError(403, detail, field, "operators-only");
  }
}

/** What of a policy has changed. */
export function difference<P extends PortPolicy>(before: P, after: P): Partial<P> {
  const changed = Object.entries(after).filter(([key, value]) =>
    JSON.stringify(value) !== JSON.stringify(before[key as keyof P])
  );
  return Object.fromEntries(changed) as Partial<P>;
}

/** A patch in which no address, as `ip link` writes it too, is the one that the port begins with, and nobody has set. */
export function withDerivedMac<P extends { mac?: string | null | undefined; macFixed?: boolean | undefined }>(
  patch: P,
  derived: string,
): Omit<P, "mac"> & { mac?: string } {
  const { mac, ...rest } = patch;
  if (mac === undefined) return rest;
  return mac === null ? { macFixed: false, ...rest, mac: derived } : { ...rest, mac };
}

function unprocessable(field: string, detail: string): ApiError {
  return new ApiError(422, detail, field);
}

/** The policy that `patch` makes of `before`. Throws ApiError naming the field that is at fault. */
function patchedPolicy<P extends PortPolicy>(who: string, before: P, patch: Partial<P>): P {
  const next: P = { ...before };
  for (const [key, value] of Object.entries(patch)) if (value !== undefined) Object.assign(next, { [key]: value });
  // Leaving the VLAN takes its priority and protocol along, as `ip link set vf N vlan 0` does.
  if (next.vlan === 0) {
    if (patch.qos === undefined) next.qos = 0;
    if (patch.vlanProto === undefined) next.vlanProto = "802.1Q";
  }
  if (patch.trust === false && patch.promisc === undefined) next.promisc = false;
  // An address that the PF sets is the PF's: only a trusted guest may change it afterwards.
  if (patch.mac !== undefined && patch.macFixed === undefined) next.macFixed = true;

  if (next.vlan === 0 && next.qos !== 0) {
    throw unprocessable("qos", `cannot set qos ${next.qos} on ${who}: it has no VLAN to carry it; set vlan too`);
  }
  if (next.vlan === 0 && next.vlanProto !== "802.1Q") {
    throw unprocessable("vlanProto", `cannot set vlanProto 802.1ad on ${who}: it has no VLAN; set vlan too`);
  }
  if (next.promisc && !next.trust) {
    throw unprocessable("promisc", `cannot make ${who} promiscuous: it is not trusted; set trust too`);
  }
  if (next.maxTxRate !== 0 && next.minTxRate > next.maxTxRate) {
    const field = patch.minTxRate === undefined ? "maxTxRate" : "minTxRate";
    throw unprocessable(
      field,
      `cannot set ${field} ${
        next[field]
      } on ${who}: minTxRate ${next.minTxRate} would be over maxTxRate ${next.maxTxRate}`,
    );
  }
  return next;
}

/** Whether a port that sees tags is a member of the VLAN with key `key`. */
function isTrunkOf({ vlan, trunk, nativeVlan }: PortPolicy, key: number): boolean {
  return vlan === 0 && key !== 0 && (trunk.includes(key & 0xfff) || nativeVlan === key);
}

/** Throws if two ports, or a port and the PF, would receive the same (MAC, VLAN). */
function checkAddresses(settings: Settings, mine: PortPolicy, who: string): void {
  const addresses = addressesOfPort(mine);
  const fieldOf = (mac: string) => mac === mine.mac ? "mac" : "allowedMacs";
  for (const mac of addresses) {
    if (mac === settings.pfMac) throw new ApiError(409, `cannot give ${who} the PF's address ${mac}`, fieldOf(mac));
    if (mac === uplinkMac(settings.pfMac)) {
      throw new ApiError(409, `cannot give ${who} the address ${mac}: it is the uplink port's`, fieldOf(mac));
    }
  }
  const others: [string, PortPolicy][] = [
    ...settings.vfs.map((vf, id): [string, PortPolicy] => [`vf ${id}`, vf]),
    ...settings.vports.map((vport): [string, PortPolicy] => [`vport ${vport.id}`, vport]),
  ];
  for (const [name, other] of others) {
    if (other === mine) continue;
    const mac = addressesOfPort(other).find((mac) => addresses.includes(mac));
    if (mac === undefined) continue;
    const everywhere = (vf: PortPolicy) => vf.vlan === 0 && vf.trust;
    const shared = everywhere(mine) || everywhere(other) || vlanKey(mine) === vlanKey(other) ||
      isTrunkOf(other, vlanKey(mine)) || isTrunkOf(mine, vlanKey(other));
    if (!shared) continue;
    const vlan = mine.vlan || other.vlan;
    const where = vlan === 0 ? "without a VLAN" : `in VLAN ${vlan}`;
    throw new ApiError(409, `cannot give ${who} the address ${mac}: ${name} has it ${where}`, fieldOf(mac));
  }
}

/** The policy of VF `id`. Throws ApiError if there is no such VF. */
export function findVf({ vfs }: Settings, id: number): VfPolicy {
  const policy = vfs[id];
  if (policy) return policy;
  const range = vfs.length === 0 ? "there are none" : `VFs are 0–${vfs.length - 1}`;
  throw new ApiError(404, `there is no vf ${id}: ${range}`, "id");
}

/** The settings after a PATCH of one VF. */
export function patchVf(settings: Settings, vf: number, patch: OwnPatch<VfPatch>): Settings {
  const before = findVf(settings, vf);
  const holder = settings.vports.find((vport) => vport.vf === vf);
  if (holder) {
    const detail = `vf ${vf} is allotted to the guest of vport ${holder.id}: set the vport's policy instead`;
    throw new ApiError(409, detail, "id", "vf-allotted");
  }
  const mine = patchedPolicy<VfPolicy>(`vf ${vf}`, before, patch as Partial<VfPolicy>);
  const next = { ...settings, vfs: settings.vfs.with(vf, mine) };
  mustMirrorLawfully(next, vf);
  checkAddresses(next, mine, `vf ${vf}`);
  return next;
}

/** The vport with number `id`. Throws ApiError if there is none. */
export function findVport(settings: Settings, id: number): Vport {
  const vport = settings.vports.find((vport) => vport.id === id);
  if (vport) return vport;
  const known = settings.vports.map((vport) => vport.id).join(", ") || "none";
  throw new ApiError(404, `there is no vport ${id}; there are: ${known}`, "id");
}

/** The settings after a PATCH of one vport. */
export function patchVport(settings: Settings, id: number, patch: OwnPatch<VportPatch>): Settings {
  const mine = patchedPolicy<Vport>(`vport ${id}`, findVport(settings, id), patch as Partial<Vport>);
  const next = { ...settings, vports: settings.vports.map((vport) => vport.id === id ? mine : vport) };
  mustMirrorVportLawfully(next, id);
  checkAddresses(next, mine, `vport ${id}`);
  return next;
}

/** The settings with a free VF allotted to a vport. `isFree` says whether nobody is attached to a VF. */
export function allotVf(settings: Settings, id: number, isFree: (vf: number) => boolean): Settings {
  const vport = findVport(settings, id);
  if (vport.vf !== null) return settings;
  mustLeaveMirrors(settings, id);
  const taken = new Set(settings.vports.map(({ vf }) => vf));
  const vf = settings.vfs.findLastIndex((_, vf) =>
    !taken.has(vf) && settings.uplinks[vf] === undefined && !isMirrored(settings, vf) && isFree(vf)
  );
  if (vf < 0) {
    const detail = `no VF is left for the guest of vport ${id}: all ${settings.vfs.length} are in use`;
    throw new ApiError(409, detail, "mode", "no-vf-left");
  }
  return { ...settings, vports: settings.vports.map((one) => one.id === id ? { ...one, vf } : one) };
}

/** The settings with the vport's VF given back. */
export function returnVf(settings: Settings, id: number): Settings {
  findVport(settings, id);
  return { ...settings, vports: settings.vports.map((one) => one.id === id ? { ...one, vf: null } : one) };
}

/** The settings with a new vport, which is there already with its first values, and `patch` on it. */
export function addVport(settings: Settings, vport: Vport, patch: OwnPatch<VportPatch>): Settings {
  mustHaveSwitch(settings);
  if (settings.vports.some(({ id }) => id === vport.id)) {
    throw new ApiError(409, `there is a vport ${vport.id} already`, "id");
  }
  const vports = [...settings.vports, vport].sort((a, b) => a.id - b.id);
  return patchVport({ ...settings, vports }, vport.id, patch);
}

/** The settings after a PATCH of the NIC. New VFs begin with `initial` policy. */
export function patchNic(settings: Settings, patch: NicPatch, initial: (vf: number) => VfPolicy): Settings {
  const count = patch.numVfs ?? settings.vfs.length;
  const allotted = settings.vports.find(({ vf }) => vf !== null && vf >= count);
  if (allotted) {
    throw new ApiError(
      409,
      `vf ${allotted.vf} cannot be removed: put the guest of vport ${allotted.id} into emulated mode first`,
      "numVfs",
    );
  }
  mustKeepBound(settings, count);
  const next: Settings = {
    ...settings,
    switchMode: patch.switchMode ?? settings.switchMode,
    link: patch.link ?? settings.link,
    uplinkTrunk: patch.uplinkTrunk ?? settings.uplinkTrunk,
    uplinkNativeVlan: patch.uplinkNativeVlan ?? settings.uplinkNativeVlan,
    pfMirror: patch.pfMirror === undefined ? settings.pfMirror : patch.pfMirror,
    vfs: Array.from({ length: count }, (_, vf) => settings.vfs[vf] ?? initial(vf)),
  };
  mustKeepMirrors(patch.pfMirror === undefined ? settings : { ...settings, pfMirror: null }, count);
  mustMirrorPfLawfully(next);
  for (let vf = settings.vfs.length; vf < count; vf++) checkAddresses(next, next.vfs[vf] as VfPolicy, `vf ${vf}`);
  return next;
}
