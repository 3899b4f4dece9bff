/** What to do when a drop counter grows: the reasons of docs/troubleshooting.md in a sentence each. */
import type { CounterName } from "../../shared/layout/counter_names.ts";

/** By counter; those that are not here count what is as it should be. */
export const ADVICE: Partial<Record<CounterName, string>> = {
  rx_no_buffer:
    "The guest does not keep up, or its driver has stopped: more queue pairs, larger rings, or a look inside.",
  rx_too_small: "The guest's MTU is smaller than the sender's: give both the same, or let the guest merge buffers.",
  rx_no_queue: "Its driver has not started its rings: is the guest's interface up?",
  rx_link_down: "Set its link: fabric vf set N state auto.",
  rx_queue_error: "Its receive queue broke the protocol: the queue's reason says how; its driver has to reset it.",
  rx_too_dear: "Its buffers are chains that take too long to walk: larger buffers.",
  rx_stalled: "What is behind the uplink takes no frames: fabric uplink.",
  tx_link_down: "Set its link: fabric vf set N state auto.",
  tx_spoofed:
    "It sends from another address: give the VF that one (fabric vf set N mac …), or spoofchk off, or trust on.",
  tx_bad_source: "It sends from an address that cannot be one.",
  tx_ip_spoofed: "It sends from an IP address that it may not use: fabric vf set N allowed_ips …, or another address.",
  tx_broadcast_limited: "It sends too many broadcasts: a loop in the guest, or fabric vf set N max_broadcast_rate 0.",
  tx_vlan_tagged: "It tags its frames, and the PF sets its VLAN: vlan 0 and trunk, or no tags in the guest.",
  tx_vlan_denied: "It uses a VLAN that it may not: fabric vf set N trunk …, or trust on.",
  tx_runt: "It sends frames that are no frames.",
  tx_oversize: "It sends frames longer than 64 KiB.",
  tx_bad_offload:
    "It asks for an offload that it did not negotiate, or that does not fit its frame: look at its driver.",
  tx_no_destination: "Nobody has the address that it sends to: is the peer in the same VLAN, and was its address set?",
  tx_unfetched: "Its VF was taken back while it had frames to send.",
};
