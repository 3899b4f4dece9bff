/**
 * Filters of captures: steps that compare bytes of a frame's head, as its port has it, or what else is known of the
 * frame. The control thread has made them and checked that each step leads to later ones (shared/capture/). The head is
 * copied first, so nobody changes it meanwhile.
 */
import {
  CAPTURE_HEAD_BYTES,
  CAPTURE_STATE,
  CAPTURE_STEP_STRIDE,
  NO_PROTOCOL,
  NO_VLAN,
  STEP_FRAME,
  STEP_META,
  STEP_NETWORK,
  STEP_UNWANTED,
  STEP_WANTED,
  XF_BASE,
  XF_BYTES,
  XF_MASK,
  XF_NO,
  XF_OFFSET,
  XF_VALUE,
  XF_YES,
  XM_DIRECTION,
  XM_DROPPED,
  XM_POOL,
  XM_PORTS,
  XM_PROTOCOL,
  XM_TYPE,
  XM_VLAN,
  XS_HEAD,
  XS_META,
} from "../../../shared/layout/nic.ts";
import { isTag } from "../../lib/ethernet.ts";
import {
  isIpv6,
  network,
  NO_TRANSPORT,
  NOT_IP,
  protocol,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  transportOf,
} from "../batch/transport.ts";
import { context } from "../context.ts";
import { peekFrame } from "../deliver/head.ts";

const PROTOCOL_SCTP: u32 = 132;
const FRAGMENT_OFFSET: u32 = 0xff1f;

/** Bytes of the head that are there, and where its transport header begins. */
let known: u32 = 0;
let transport: u32 = 0;

/** Notes what is known of a frame of `pool` beside its bytes. */
export function noteMeta(pool: u32, direction: u32, reason: u32): void {
  const meta = context + CAPTURE_STATE + XS_META;
  store<u32>(meta, pool, XM_POOL);
  store<u32>(meta, direction, XM_DIRECTION);
  store<u32>(meta, reason >> 3, XM_DROPPED);
}

/** Reads the head of a record's frame, `length` bytes long at its port. */
export function readHead(record: usize, head: u32, tag: u32, length: u32): void {
  const s = context + CAPTURE_STATE;
  const frame = s + XS_HEAD;
  const meta = s + XS_META;
  known = min(length, <u32> CAPTURE_HEAD_BYTES);
  memory.fill(frame, 0, 64);
  peekFrame(record, head, tag, known, frame);
  transport = transportOf(frame, known);
  const isIp = transport != NOT_IP && transport != NO_TRANSPORT;
  const hasType = network <= known;
  store<u32>(meta, hasType ? <u32> load<u16>(frame + network - 2) : 0, XM_TYPE);
  store<u32>(meta, isTag(load<u16>(frame, 12)) ? <u32> bswap<u16>(load<u16>(frame, 14)) & 0xfff : NO_VLAN, XM_VLAN);
  store<u32>(meta, isIp ? protocol : NO_PROTOCOL, XM_PROTOCOL);
  const isFirst = isIp && (isIpv6 || (<u32> load<u16>(frame + network, 6) & FRAGMENT_OFFSET) == 0);
  const hasPorts = protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP || protocol == PROTOCOL_SCTP;
  store<u32>(meta, isFirst && hasPorts ? 1 : 0, XM_PORTS);
}

/** Steps that the filter took which was asked last. */
export let taken: u32 = 0;

/** Whether the filter of `steps` steps at `filter` wants the frame whose head was read last. */
export function isWanted(filter: usize, steps: u32): bool {
  let step: u32 = 0;
  taken = 0;
  for (let i: u32 = 0; i < steps && step < steps; i++) {
    taken++;
    const at = filter + step * CAPTURE_STEP_STRIDE;
    const next: u32 = hasValue(at) ? load<u16>(at, XF_YES) : load<u16>(at, XF_NO);
    if (next >= <u32> STEP_UNWANTED) return next == STEP_WANTED;
    step = next;
  }
  return false;
}

/** Whether the bytes that the step at `at` looks at are there, and have its value. */
@inline
function hasValue(at: usize): bool {
  const s = context + CAPTURE_STATE;
  const base: u32 = load<u8>(at, XF_BASE);
  const offset: u32 = load<u8>(at, XF_OFFSET);
  let from: usize = s + XS_META + (offset & 0x1c);
  if (base != STEP_META) {
    const start: u32 = base == STEP_FRAME ? 0 : base == STEP_NETWORK ? network : transport;
    if (base > <u32> STEP_NETWORK && (start == NOT_IP || start == NO_TRANSPORT)) return false;
    if (start > known || start + offset + <u32> load<u8>(at, XF_BYTES) > known) return false;
    from = s + XS_HEAD + start + offset;
  }
  return (load<u32>(from) & load<u32>(at, XF_MASK)) == load<u32>(at, XF_VALUE);
}
