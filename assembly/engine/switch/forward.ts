/**
 * The embedded switch (VMDq and VEB semantics) over a batch: each record's decision, then its delivery into the group of
 * its receive queue. Neighbours between the same two addresses share their decision without a look into the cache.
 */
import {
  B_UNITS,
  C_RX_STALLED,
  C_TX_BROADCAST,
  C_TX_BYTES,
  C_TX_FRAMES,
  C_TX_MULTICAST,
  D_COUNTER,
  D_F_SENT,
  D_FLAGS,
  D_KIND,
  D_POOL,
  D_QUEUE,
  DECIDED_DELIVER,
  DECIDED_DROP,
  DECIDED_FLOOD,
  DECIDED_UNKNOWN,
  N_COUNT,
  ONE_DECISION,
  P_RX_COUNT,
  P_WATCH,
  POOL_UPLINK,
  Q_POOL,
  R_DELIVERY,
  R_DROP,
  R_FLAGS,
  R_LENGTH,
  R_SEGMENTS,
  RECORD_F_PLAIN,
  RECORD_F_WHOLE,
  RECORD_STRIDE,
} from "../../../shared/layout/nic.ts";
import { isMulticast, MAC_BROADCAST, MAC_MASK } from "../../lib/ethernet.ts";
import { kindOf } from "../deliver/head.ts";
import { noHead, recordAt, SAME } from "../batch/record.ts";
import { batch, context, poolAt } from "../context.ts";
import { captureSent } from "../capture/watch.ts";
import { count } from "../deliver/results.ts";
import { decide, headAndTag, uplinkTakes } from "./decide.ts";
import { isSame, keyOf } from "./decisions.ts";
import { countDrop, countDropAs, flood, floodUnknown, refuse } from "./flood.ts";
import { append, beginGroups, flush } from "./group.ts";
import { spendFinish } from "../batch/offload.ts";
import { guard, isGuarded } from "./guard.ts";
import { alikeMost, beginLine, enter, ENTERS, NO_LINE, STALLED, took, WAITS } from "./line.ts";
import { mirrorSent } from "./mirror.ts";
import { hashOf, noteFlow, steer } from "./steer.ts";

/**
 * Takes the batch's first `n` records, gathered from TX queue `q`, through the switch, as many as `unitLimit` allows:
 * frames for many may cost more than it. Answers how many: at least one, unless that one waits for the uplink.
 */
export function forward(q: usize, n: u32, unitLimit: u32): u32 {
  const pool = load<u32>(q, Q_POOL);
  const p = poolAt(pool);
  const manyQueues = load<u32>(p, P_RX_COUNT) > 1;
  const guarded = isGuarded(pool);
  const once = context + ONE_DECISION;
  // The two decisions that were used last: most traffic is between few.
  let entry: usize = once;
  let key = noHead();
  let entry2: usize = once;
  let key2 = noHead();
  let sent: u32 = 0;
  let bytes: u32 = 0;
  let record = recordAt(0);
  let i: u32 = 0;
  const end = load<u32>(batch(), B_UNITS) + unitLimit;
  const line = beginLine(q, pool);
  beginGroups(pool);
  for (; i < n; i++, record += RECORD_STRIDE) {
    if (isRefused(pool, record, guarded)) continue;
    const next = keyOf(record);
    if (entry == once || !isSame(next, key)) {
      const before = entry;
      entry = entry2 != once && isSame(next, key2) ? entry2 : decide(pool, record, next);
      // A new decision may have taken the place of the one before.
      entry2 = before == entry ? once : before;
      key2 = key;
      key = next;
    }
    const rx: usize = load<u32>(entry, D_QUEUE);
    const fate = rx == line || rx == 0 ? atLine(line, record, entry) : ENTERS;
    if (fate == WAITS) break;
    if ((load<u8>(entry, D_FLAGS) & D_F_SENT) != 0) {
      sent++;
      bytes += load<u32>(record, R_LENGTH);
      if (manyQueues) noteFlow(pool, hashOf(record), q);
      if (load<u8>(record) & 1) countGroupAddress(p, load<u64>(record) & MAC_MASK);
    }
    if (rx == line && fate == STALLED) {
      countDropAs(POOL_UPLINK, record, entry, C_RX_STALLED);
      continue;
    }
    if (rx != 0) append(rx, record + R_DELIVERY, record, headOfDelivery(record, entry));
    if (rx == 0 || (load<u16>(record, R_FLAGS) & (RECORD_F_PLAIN | RECORD_F_WHOLE)) == 0) {
      if (rx == 0) unusual(pool, record, entry, fate);
      else spendFinish(rx, record);
      if (load<u32>(batch(), B_UNITS) < end) continue;
      i++;
      break;
    }
    // What was decided for this frame alone says nothing about the next.
    if (entry == once || manyQueues || guarded) continue;
    const more = alikeBehind(record, rx == line ? min(n - i - 1, alikeMost(line, record)) : n - i - 1);
    store<u16>(record, <u16> (more + 1), R_DELIVERY + N_COUNT);
    if (rx == line && more != 0) took(more, alikeBytes);
    record += more * RECORD_STRIDE;
    i += more;
    sent += more;
    bytes += alikeBytes;
  }
  // Before they are delivered: what was sent stands before what was received of it.
  if (load<u64>(p, P_WATCH) != 0) seeSent(pool, i);
  flush();
  if (sent != 0) {
    count(p, C_TX_FRAMES, sent);
    count(p, C_TX_BYTES, bytes);
  }
  return i;
}

/** Whether a frame is dropped whatever its addresses, and counted. */
@inline
function isRefused(pool: u32, record: usize, guarded: bool): bool {
  let fault = load<u32>(record, R_DROP);
  if (fault == 0 && guarded) fault = guard(pool, record);
  if (fault == 0) return false;
  refuse(pool, record, fault);
  return true;
}

/** Bytes of the frames that `alikeBehind` has found. */
let alikeBytes: u32 = 0;

/** How many records behind `record` are treated as it is, of the next `most`. */
@inline
function alikeBehind(record: usize, most: u32): u32 {
  const alike = load<u64>(record, R_SEGMENTS) | SAME;
  let n: u32 = 0;
  let bytes: u32 = 0;
  for (let at = record + RECORD_STRIDE; n < most && load<u64>(at, R_SEGMENTS) == alike; at += RECORD_STRIDE) {
    bytes += load<u32>(at, R_LENGTH);
    n++;
  }
  alikeBytes = bytes;
  return n;
}

/** What becomes of a frame at the uplink's line, as `enter` answers; ENTERS if it is not for that, or for many. */
function atLine(line: usize, record: usize, entry: usize): u32 {
  if (line == NO_LINE) return ENTERS;
  if (load<u32>(entry, D_QUEUE) != 0) return enter(line, record);
  return <u32> load<u8>(entry, D_KIND) == DECIDED_UNKNOWN && uplinkTakes() ? enter(line, record) : ENTERS;
}

/** The batch's first `n` records, seen by who captures the pool, and by its mirror. */
function seeSent(pool: u32, n: u32): void {
  captureSent(pool, n);
  mirrorSent(pool, n);
}

/** A delivery's HEAD_* and tag << 32, as decided, and whether it may be written as it is. */
@inline
function headOfDelivery(record: usize, entry: usize): u64 {
  return headAndTag(entry) | kindOf(record);
}

/** A frame that is dropped, flooded, or steered. `fate`: what becomes of it at the uplink's line. */
function unusual(from: u32, record: usize, entry: usize, fate: u32): void {
  const kind: u32 = load<u8>(entry, D_KIND);
  if (kind == DECIDED_DROP) {
    const pool: u32 = load<u16>(entry, D_POOL);
    if (pool == from) refuse(from, record, <u32> load<u8>(entry, D_COUNTER) << 3);
    else countDrop(pool, record, entry);
  } else if (kind == DECIDED_DELIVER) {
    const rx = steer(load<u16>(entry, D_POOL), hashOf(record));
    if (rx == 0) return;
    append(rx, record + R_DELIVERY, record, headOfDelivery(record, entry));
    spendFinish(rx, record);
  } else if (kind == DECIDED_FLOOD) {
    flood(from, record);
  } else {
    floodUnknown(from, record, fate == STALLED);
  }
}

function countGroupAddress(p: usize, dst: u64): void {
  if (dst == MAC_BROADCAST) count(p, C_TX_BROADCAST, 1);
  else if (isMulticast(dst)) count(p, C_TX_MULTICAST, 1);
}
