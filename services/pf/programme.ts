/** What of the PF's settings the NIC and the software switch have to know. Pure. */
import { type PortPolicy, type Programme, receivedMulticast, type SwitchProgramme } from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

/** A policy as the NIC and the switch have it in force: of multicast, what the PF allows and the guest wants. */
function inForce<P extends PortPolicy>(policy: P): P {
  return { ...policy, multicast: receivedMulticast(policy) };
}

/**
 * What of the settings the NIC has to know; `carrier` is the link that ports with linkState auto have. A VF that is
 * allotted to a vport's guest has the vport's policy; until the guest drives it, what comes for it goes where the guest
 * still is: to the switch behind the PF's pool.
 */
export function nicProgramme(settings: Settings, carrier: "up" | "down"): Programme {
  const { switchMode, pfMac, vfs, vports, uplinkTrunk, uplinkNativeVlan, pfMirror } = settings;
  const effective = vfs.map((own, vf) => {
    const holder = vports.find((vport) => vport.vf === vf);
    if (!holder) return { ...inForce(own), fallback: "none" as const };
    // A vport's mirror is the software switch's.
    const { id: _id, vf: _vf, mirror: _none, ...policy } = holder;
    return { ...own, ...inForce(policy), fallback: "pf" as const };
  });
  const onSwitch = vports.filter(({ vf }) => vf === null);
  return {
    ...{ switchMode, link: carrier, pfMac, vfs: effective, uplinkTrunk, uplinkNativeVlan, pfMirror },
    vports: onSwitch.map(({ mac, allowedMacs, vlan, vlanProto }) => ({ mac, allowedMacs, vlan, vlanProto })),
  };
}

/** What of them the software switch has to know. */
export function switchProgramme({ switchMode, vports, uplinks }: Settings, carrier: "up" | "down"): SwitchProgramme {
  return { switchMode, link: carrier, vports: vports.map(inForce), drivesPf: uplinks.pf === undefined };
}

/** Whether a change is the software switch's too. Without vports it has nothing to know, and need not even be there. */
export function concernsSwitch(next: Settings, before: Settings): boolean {
  if (next.vports !== before.vports || next.uplinks.pf !== before.uplinks.pf) return true;
  return next.vports.length > 0 && next.switchMode !== before.switchMode;
}
