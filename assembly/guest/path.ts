/** The data path in use: its exchange lists, its receive buffers' owner, and what it does for the host. */
import {
  AREA_EXCHANGE,
  GC,
  GC_PATH,
  GC_RX_OFFLOADS,
  GC_TX_OFFLOADS,
  OWNER_RX,
  PAIR_RX_HELD,
  PLUGIN_AREA,
  VIRTIO_AREA,
} from "../../shared/layout/guest.ts";
import { OFFLOAD_F_CSUM, OFFLOAD_F_USO4 } from "../../shared/layout/nic.ts";
import { PLUGIN_EXCHANGE } from "../../shared/layout/plugin.ts";
import { pairOf } from "./buffers.ts";

/** Where one of its lists lies. */
@inline
export function list(at: u32): usize {
  const area: u32 = load<u32>(GC, GC_PATH) == 0 ? VIRTIO_AREA : PLUGIN_AREA;
  return area + AREA_EXCHANGE + (at - PLUGIN_EXCHANGE);
}

/** Who its receive buffers belong to. */
@inline
export function rxOwner(): u32 {
  return OWNER_RX + load<u32>(GC, GC_PATH);
}

/** Where it is noted how many receive buffers it has of `pair`. */
@inline
export function rxHeldAt(pair: u32): usize {
  return pairOf(pair) + PAIR_RX_HELD + load<u32>(GC, GC_PATH) * 4;
}

/** Whether it fills in checksums of frames to be sent. */
@inline
export function sums(): bool {
  return (load<u32>(GC + load<u32>(GC, GC_PATH) * 4, GC_TX_OFFLOADS) & OFFLOAD_F_CSUM) != 0;
}

/** Whether it cuts UDP over IPv4 into datagrams. */
@inline
export function cuts(): bool {
  const both: u32 = OFFLOAD_F_CSUM | OFFLOAD_F_USO4;
  return (load<u32>(GC + load<u32>(GC, GC_PATH) * 4, GC_TX_OFFLOADS) & both) == both;
}

/** Whether it may say of received frames that their checksums are good, or not filled in. */
@inline
export function saysOfChecksums(): bool {
  return (load<u32>(GC + load<u32>(GC, GC_PATH) * 4, GC_RX_OFFLOADS) & OFFLOAD_F_CSUM) != 0;
}
