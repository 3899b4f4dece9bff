/** What of a programme the VFs' guests see beside frames, as the device socket tells it. */
import { type Programme, uplinkMac } from "../../shared/api/nic.ts";
import { COALESCE_ADAPTIVE, coalesceOf, isLinkUp, MTU_DEFAULT } from "../../shared/api/policy.ts";
import { QUEUE_PAIRS_MAX } from "../../shared/layout/nic.ts";
import type { DeviceEvent } from "../../shared/device/mod.ts";

export type VfsEvent = Extract<DeviceEvent, { event: "vfs" }>;

/** What of a programme the VFs' guests see beside frames. */
export function vfsEvent(programme: Programme | undefined): VfsEvent {
  const { vfs = [], link = "down", pfMac = "00:00:00:00:00:00" } = programme ?? {};
  return {
    event: "vfs",
    links: vfs.map((policy) => ({
      ...{ mac: policy.mac, mtu: policy.mtu, queuePairs: policy.queuePairs, coalesce: coalesceOf(policy) },
      up: isLinkUp(policy.linkState, link),
    })),
    uplink: {
      ...{ mac: uplinkMac(pfMac), up: link === "up", mtu: MTU_DEFAULT, queuePairs: QUEUE_PAIRS_MAX },
      coalesce: COALESCE_ADAPTIVE,
    },
  };
}
