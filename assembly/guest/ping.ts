/** Pings (RFC 792 echo) that the control thread has asked for: sent in time, answered or given up, one slot each. */
import {
  GC,
  GC_NOW_NS,
  PING_BYTES,
  PING_COUNT,
  PING_DUPLICATES,
  PING_ID,
  PING_INTERVAL_NS,
  PING_LAST_NS,
  PING_NEXT_NS,
  PING_RECEIVED,
  PING_RESULTS,
  PING_RESULTS_MAX,
  PING_SENT,
  PING_SENT_AT,
  PING_STATE,
  PING_STRIDE,
  PING_TIMEOUT_NS,
  PING_TO,
  PING_WANTED,
  PINGS,
  STATE_DONE,
  STATE_RUNNING,
} from "../../shared/layout/guest.ts";
import { resolve } from "./arp.ts";
import { fold, sum } from "../lib/checksum.ts";
import { setOutPair } from "./frame.ts";
import { beginPacket, endPacket, PROTOCOL_ICMP } from "./packet.ts";

const ECHO_BYTES: u32 = 8;
const WAIT_NS: f64 = 1e6;

/** Sends what is due; answers when something is due next (Infinity: nothing). */
export function pollPings(now: f64): f64 {
  let next: f64 = Infinity;
  for (let i: u32 = 0; i < <u32> PING_COUNT; i++) {
    const ping: usize = PINGS + i * PING_STRIDE;
    if (atomic.load<u32>(ping + PING_STATE) == STATE_RUNNING) next = min(next, pollPing(ping, now));
  }
  return next;
}

function pollPing(ping: usize, now: f64): f64 {
  const wanted = min(load<u32>(ping, PING_WANTED), <u32> PING_RESULTS_MAX);
  const sent = load<u32>(ping, PING_SENT);
  if (sent < wanted) {
    const due = load<f64>(ping, PING_NEXT_NS);
    if (now < due) return due;
    // An echo waits for its destination's address, as it would in a kernel's neighbour table, but not for ever.
    if (resolve(load<u32>(ping, PING_TO)) == 0 && due != 0 && now - due < load<f64>(ping, PING_TIMEOUT_NS)) return now + WAIT_NS;
    send(ping, sent, now);
    store<u32>(ping, sent + 1, PING_SENT);
    store<f64>(ping, now, PING_LAST_NS);
    store<f64>(ping, now + load<f64>(ping, PING_INTERVAL_NS), PING_NEXT_NS);
    return now;
  }
  const end = load<f64>(ping, PING_LAST_NS) + load<f64>(ping, PING_TIMEOUT_NS);
  if (load<u32>(ping, PING_RECEIVED) < wanted && now < end) return end;
  atomic.store<u32>(ping + PING_STATE, STATE_DONE);
  return Infinity;
}

/** One echo request. While nobody knows where it is to go it counts as sent, and as lost if that stays so. */
function send(ping: usize, sequence: u32, now: f64): void {
  const to = load<u32>(ping, PING_TO);
  store<f64>(ping + PING_SENT_AT + sequence * 8, now);
  store<f64>(ping + PING_RESULTS + sequence * 8, -1);
  const dst = resolve(to);
  if (dst == 0) return;
  const n = ECHO_BYTES + load<u32>(ping, PING_BYTES);
  setOutPair(0);
  const at = beginPacket(dst, to, PROTOCOL_ICMP, n);
  if (at == 0) return;
  store<u32>(at, 8);
  store<u16>(at, bswap<u16>(<u16> load<u32>(ping, PING_ID)), 4);
  store<u16>(at, bswap<u16>(<u16> sequence), 6);
  for (let i: u32 = ECHO_BYTES; i < n; i++) store<u8>(at + i, <u8> i);
  store<u16>(at, <u16> fold(sum(at, n, 0)), 2);
  endPacket(n);
}

/** An echo reply of `n` bytes, whose checksum is right. */
export function echoReply(at: usize, n: u32, from: u32): void {
  const id: u32 = bswap<u16>(load<u16>(at, 4));
  const sequence: u32 = bswap<u16>(load<u16>(at, 6));
  for (let i: u32 = 0; i < <u32> PING_COUNT; i++) {
    const ping: usize = PINGS + i * PING_STRIDE;
    if (atomic.load<u32>(ping + PING_STATE) != STATE_RUNNING || load<u32>(ping, PING_ID) != id) continue;
    if (load<u32>(ping, PING_TO) != from || sequence >= load<u32>(ping, PING_SENT)) return;
    if (n != ECHO_BYTES + load<u32>(ping, PING_BYTES)) return;
    const result = ping + PING_RESULTS + sequence * 8;
    if (load<f64>(result) >= 0) {
      store<u32>(ping, load<u32>(ping, PING_DUPLICATES) + 1, PING_DUPLICATES);
      return;
    }
    store<f64>(result, load<f64>(GC, GC_NOW_NS) - load<f64>(ping + PING_SENT_AT + sequence * 8));
    store<u32>(ping, load<u32>(ping, PING_RECEIVED) + 1, PING_RECEIVED);
    return;
  }
}
