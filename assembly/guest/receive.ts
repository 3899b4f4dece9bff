/** Frames from the data path: what the plugin reports is held against the books, and frames in several buffers become one. */
import {
  G_RX_BAD,
  G_RX_BYTES,
  G_RX_FRAMES,
  G_RX_NOT_MINE,
  GC,
  GC_LINK,
  GC_MAC,
  GC_VLAN,
  RX_SCRATCH,
  SCRATCH_BYTES,
} from "../../shared/layout/guest.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_CSUM_VALID,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_NET_HDR,
  ENTRY_OFFSET,
  LIST_MAX,
  LIST_RX,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
} from "../../shared/layout/plugin.ts";
import { VIRTIO_NET_HDR_BYTES } from "../../shared/layout/virtio.ts";
import { arrivedAt, arrivesPlain, arrivesWith } from "./arrival.ts";
import { arpInput } from "./arp.ts";
import { bufferAt, count, giveBuffer, ownerOf } from "./buffers.ts";
import { capture } from "./capture.ts";
import { setOutPair } from "./frame.ts";
import { ipv4Input } from "./ipv4.ts";
import { list, rxHeldAt, rxOwner, saysOfChecksums } from "./path.ts";

/** Frames whose first lines are asked for at once, and how much of each. */
const TOUCH_ENTRIES: u32 = 16;
const TOUCH_BYTES: u32 = 192;
/** What was read ahead. Exported, or the compiler would see that nobody needs it and not read at all. */
export let touched: u64 = 0;

const ETHERTYPE_IPV4: u32 = 0x0008;
const ETHERTYPE_ARP: u32 = 0x0608;
const TPID: u32 = 0x0081;

/**
 * Reads the first lines of what `n` entries name, before any is looked into: the device has just written them, and
 * waiting for all at once takes as long as waiting for one. What cannot be is left for `received` to find.
 */
function touchAhead(entries: usize, n: u32): void {
  let sum: u64 = 0;
  for (let i: u32 = 0; i < n; i++) {
    const entry = entries + i * ENTRY_BYTES;
    const buffer = load<u32>(entry, ENTRY_BUFFER) & (PLUGIN_BUFFER_COUNT - 1);
    const offset = min(load<u32>(entry, ENTRY_OFFSET), <u32> PLUGIN_BUFFER_BYTES - TOUCH_BYTES - 8);
    const at = bufferAt(buffer) + offset;
    for (let line: u32 = 0; line < TOUCH_BYTES; line += 64) sum += load<u64>(at + line);
  }
  touched = sum;
}

/** The data path reports `n` entries in LIST_RX; false if one of them cannot be. */
export function received(pair: u32, n: u32): bool {
  if (n > <u32> LIST_MAX) return false;
  const from = list(LIST_RX);
  const owner = rxOwner();
  // What a plugin says that was not asked is nothing.
  const asked: u32 = saysOfChecksums() ? ENTRY_NET_HDR | ENTRY_CSUM_VALID : 0;
  let gathered: u32 = 0;
  let first = true;
  for (let i: u32 = 0; i < n; i++) {
    if (i % TOUCH_ENTRIES == 0) touchAhead(from + i * ENTRY_BYTES, min(n - i, TOUCH_ENTRIES));
    const entry = from + i * ENTRY_BYTES;
    const buffer = load<u32>(entry, ENTRY_BUFFER);
    const offset = load<u32>(entry, ENTRY_OFFSET);
    const length = load<u32>(entry, ENTRY_LENGTH);
    const flags = load<u32>(entry, ENTRY_FLAGS);
    const last = (flags & ENTRY_EOP) != 0;
    if (buffer >= <u32> PLUGIN_BUFFER_COUNT || ownerOf(buffer) != owner) return false;
    if (offset > <u32> PLUGIN_BUFFER_BYTES || length > <u32> PLUGIN_BUFFER_BYTES - offset) return false;
    const data = bufferAt(buffer) + offset;
    if (first) {
      const says = flags & asked;
      if ((says & ENTRY_NET_HDR) != 0 && offset < <u32> VIRTIO_NET_HDR_BYTES) return false;
      if (says != 0) arrivesWith(says, data);
      else arrivesPlain();
    }
    first = last;
    if (last && gathered == 0) {
      input(pair, data, length);
    } else {
      if (gathered + length <= <u32> SCRATCH_BYTES) memory.copy(RX_SCRATCH + gathered, data, length);
      gathered += length;
      if (last) {
        if (gathered <= <u32> SCRATCH_BYTES) input(pair, RX_SCRATCH, gathered);
        else count(G_RX_BAD, 1);
        gathered = 0;
      }
    }
    giveBuffer(buffer);
  }
  const at = rxHeldAt(pair);
  store<u32>(at, load<u32>(at) - n);
  return true;
}

/** Takes a frame of `n` bytes. */
function input(pair: u32, at: usize, n: u32): void {
  if (n < 14) return count(G_RX_BAD, 1);
  arrivedAt(at);
  capture(at, n, 0);
  count(G_RX_FRAMES, 1);
  count(G_RX_BYTES, n);
  const dst = load<u64>(at) & 0xffffffffffff;
  if ((dst & 1) == 0 && dst != load<u64>(GC, GC_MAC)) return count(G_RX_NOT_MINE, 1);
  if (load<u32>(GC, GC_LINK) == 0) return;
  const src = load<u64>(at, 6) & 0xffffffffffff;
  let type: u32 = load<u16>(at, 12);
  let header: u32 = 14;
  const vlan = load<u32>(GC, GC_VLAN);
  if (type == TPID && n >= 18) {
    const vid = <u32> bswap<u16>(load<u16>(at, 14)) & 0xfff;
    if (vid != 0 && vid != vlan) return count(G_RX_NOT_MINE, 1);
    if (vid == 0 && vlan != 0) return count(G_RX_NOT_MINE, 1);
    type = load<u16>(at, 16);
    header = 18;
  } else if (vlan != 0) {
    return count(G_RX_NOT_MINE, 1);
  }
  setOutPair(pair);
  if (type == ETHERTYPE_IPV4) ipv4Input(at + header, n - header, src);
  else if (type == ETHERTYPE_ARP) arpInput(at + header, n - header);
  else count(G_RX_NOT_MINE, 1);
}

