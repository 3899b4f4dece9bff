/**
 * The counters of a pool by name, in the order of their offsets in nic.ts, with what each one means. The name is the
 * one in the API and, with a prefix, in the metrics.
 */
import { P_ENGINE_NS, P_RECEIVE_NS } from "./engine/pool.ts";

/** Name and meaning of every pool counter; entry *i* lies at `P_COUNTERS + 8 * i`. */
export const COUNTERS = [
  ["rx_frames", "Frames delivered to the VF"],
  ["rx_bytes", "Bytes delivered to the VF, without FCS"],
  ["tx_frames", "Frames the VF sent that passed its policy"],
  ["tx_bytes", "Bytes the VF sent that passed its policy, without FCS"],
  ["rx_multicast", "Multicast frames delivered to the VF"],
  ["rx_broadcast", "Broadcast frames delivered to the VF"],
  ["tx_multicast", "Multicast frames the VF sent"],
  ["tx_broadcast", "Broadcast frames the VF sent"],
  ["rx_no_buffer", "Frames dropped because the VF had posted no receive buffer"],
  ["rx_too_small", "Frames dropped because the VF's receive buffers were too small"],
  ["rx_no_queue", "Frames dropped because no receive queue of the VF runs"],
  ["rx_link_down", "Frames dropped because the VF's link is down"],
  ["rx_queue_error", "Frames dropped because the VF's receive queue broke the protocol"],
  ["tx_link_down", "Frames of the VF dropped because its link is down"],
  ["tx_spoofed", "Frames of the VF dropped by the spoof check"],
  ["tx_bad_source", "Frames of the VF dropped because the source address is multicast or zero"],
  ["tx_vlan_tagged", "Tagged frames of the VF dropped because the PF sets its VLAN"],
  ["tx_vlan_denied", "Frames of the VF dropped because their VLAN is not in its trunk list"],
  ["tx_runt", "Frames of the VF dropped because they are shorter than their headers"],
  ["tx_oversize", "Frames of the VF dropped because they are longer than 64 KiB"],
  [
    "tx_bad_offload",
    "Frames of the VF dropped because they ask for an offload that was not negotiated, or that does not fit them",
  ],
  ["tx_no_destination", "Frames of the VF dropped because nobody has their destination"],
  ["tx_to_self", "Frames of the VF dropped because they are addressed to itself"],
  ["tx_unfetched", "Descriptors that the VF's guest had offered and that were not fetched when the VF was taken back"],
  ["tx_pruned", "Frames of the uplink dropped because they came from the VF they are for (VEPA)"],
  ["rx_too_dear", "Frames dropped because the VF's receive buffers are chains that take too long to walk"],
  ["tx_broadcast_limited", "Broadcasts of the VF dropped because it sends more than it may"],
  ["tx_ip_spoofed", "Frames of the VF dropped because their IP or ARP source address is not one that it may use"],
  ["rx_interrupts", "Interrupts raised for frames delivered to the VF, unless it is emulated"],
  ["tx_interrupts", "Interrupts raised for frames taken from the VF, unless it is emulated"],
  ["rx_interrupts_saved", "Interrupts for delivered frames that another one stood for, since they were coalesced"],
  ["tx_interrupts_saved", "Interrupts for frames taken that another one stood for, since they were coalesced"],
  ["rx_stalled", "Frames dropped because the uplink that they are for has taken none for 500 ms"],
  ["tx_held", "Times that frames of the VF began to wait in their ring because the uplink had no room for them"],
] as const;

/** Times of a pool, in nanoseconds: name, meaning, and where they lie. They stand beside the counters in the API. */
export const ENGINE_TIMES = [
  ["engine_ns", "Engine time spent on what the VF sent", P_ENGINE_NS],
  ["engine_receive_ns", "Of that of others, what the VF's receive buffers cost beside the usual", P_RECEIVE_NS],
] as const;

/** The name of one pool counter. */
export type CounterName = typeof COUNTERS[number][0];
