/**
 * What may be set together: the rules that no single field can tell. They are those of `ip link set vf` and of the PF
 * drivers behind it, with reasons a person can act on. Pure: settings in, settings or an error out.
 */
import { ApiError, type NicPatch, type VfPatch, type VfPolicy, vlanKey } from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

function unprocessable(field: string, detail: string): ApiError {
  return new ApiError(422, detail, field);
}

/** The policy that `patch` makes of `before`. Throws ApiError naming the field that is at fault. */
export function patchedPolicy(vf: number, before: VfPolicy, patch: VfPatch): VfPolicy {
  const next: VfPolicy = { ...before };
  for (const [key, value] of Object.entries(patch)) if (value !== undefined) Object.assign(next, { [key]: value });
  // Leaving the VLAN takes its priority and protocol along, as `ip link set vf N vlan 0` does.
  if (next.vlan === 0) {
    if (patch.qos === undefined) next.qos = 0;
    if (patch.vlanProto === undefined) next.vlanProto = "802.1Q";
  }
  if (patch.trust === false && patch.promisc === undefined) next.promisc = false;

  const who = `vf ${vf}`;
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

/** Throws if two VFs, or a VF and the PF, would receive the same (MAC, VLAN). */
export function checkAddresses(settings: Settings, vf: number): void {
  const mine = settings.vfs[vf];
  if (!mine) return;
  if (mine.mac === settings.pfMac) throw new ApiError(409, `cannot give vf ${vf} the PF's address ${mine.mac}`, "mac");
  settings.vfs.forEach((other, id) => {
    if (id === vf || other.mac !== mine.mac) return;
    const everywhere = (vf: VfPolicy) => vf.vlan === 0 && vf.trust;
    const shared = everywhere(mine) || everywhere(other) || vlanKey(mine) === vlanKey(other) ||
      other.trunk.includes(mine.vlan) ||
      mine.trunk.includes(other.vlan);
    if (!shared) return;
    const vlan = mine.vlan || other.vlan;
    const where = vlan === 0 ? "without a VLAN" : `in VLAN ${vlan}`;
    throw new ApiError(409, `cannot give vf ${vf} the address ${mine.mac}: vf ${id} has it ${where}`, "mac");
  });
}

/** The settings after a PATCH of one VF. */
export function patchVf(settings: Settings, vf: number, patch: VfPatch): Settings {
  const before = settings.vfs[vf];
  if (!before) {
    const range = settings.vfs.length === 0 ? "there are none" : `VFs are 0–${settings.vfs.length - 1}`;
    throw new ApiError(404, `there is no vf ${vf}: ${range}`, "id");
  }
  const next = { ...settings, vfs: settings.vfs.with(vf, patchedPolicy(vf, before, patch)) };
  checkAddresses(next, vf);
  return next;
}

/** The settings after a PATCH of the NIC. New VFs begin with `initial` policy. */
export function patchNic(settings: Settings, patch: NicPatch, initial: (vf: number) => VfPolicy): Settings {
  const count = patch.numVfs ?? settings.vfs.length;
  const next: Settings = {
    ...settings,
    switchMode: patch.switchMode ?? settings.switchMode,
    link: patch.link ?? settings.link,
    vfs: Array.from({ length: count }, (_, vf) => settings.vfs[vf] ?? initial(vf)),
  };
  for (let vf = settings.vfs.length; vf < count; vf++) checkAddresses(next, vf);
  return next;
}
