/**
 * Traffic generators: UDP probes at a rate, each with its sequence number and the time it was sent. A generator that
 * cannot send (a full queue, a data path that changes) does not skip: it catches up at four times its rate, so that loss is
 * the network's, and not that of a receiver which gets a second's frames at once.
 */
import {
  GC,
  GC_LINK,
  GC_RUNNING,
  GEN_BEGAN_NS,
  GEN_BURST_MAX,
  GEN_BYTES,
  GEN_ENDS_NS,
  GEN_FLOW,
  GEN_LAST_NS,
  GEN_NEXT_NS,
  GEN_PORT,
  GEN_RATE,
  GEN_SENT,
  GEN_SOURCE_PORT,
  GEN_STATE,
  GEN_TO,
  GEN_WANTED,
  GEN_WINDOW,
  GENERATOR_COUNT,
  GENERATOR_STRIDE,
  GENERATORS,
  PROBE_BYTES,
  PROBE_MAGIC,
  STATE_DONE,
  STATE_RUNNING,
  TX_QUEUE_ENTRIES,
} from "../../shared/layout/guest.ts";
import { resolve } from "./arp.ts";
import { sumOf, sumOfLanes } from "../lib/checksum.ts";
import { flowNext } from "./flow.ts";
import { linkHeaderBytes, queueRoom, setOutPair } from "./frame.ts";
import { beginPacket, endPacket, IPV4_BYTES, PROTOCOL_UDP } from "./packet.ts";
import { UDP_BYTES, writeUdpHeader } from "./udp.ts";

/** Entries of the transmit queue that a generator leaves for everybody else. */
const ROOM_LEFT: u32 = 1024;
/** Frames of a generator with a rate that wait in the transmit queue. What is due waits outside, and is caught up with. */
const PACED_WAITING: u32 = 128;
/** How many times its rate a generator sends at while it catches up. */
const CATCH_UP: f64 = 4;
const ARP_RETRY_NS: f64 = 1e6;
const WINDOW_LOOK_NS: f64 = 10e6;
/** With nothing back for so long the whole window counts as lost, and one more frame goes out. */
const WINDOW_LOST_NS: f64 = 200e6;

/** Sends what is due; answers when something is due next (Infinity: nothing). */
export function pollGenerators(now: f64): f64 {
  let next: f64 = Infinity;
  for (let i: u32 = 0; i < <u32> GENERATOR_COUNT; i++) {
    const generator: usize = GENERATORS + i * GENERATOR_STRIDE;
    if (atomic.load<u32>(generator + GEN_STATE) == STATE_RUNNING) next = min(next, poll(generator, now));
  }
  return next;
}

function poll(generator: usize, now: f64): f64 {
  const wanted = load<u64>(generator, GEN_WANTED);
  const sent = load<u64>(generator, GEN_SENT);
  const ends = load<f64>(generator, GEN_ENDS_NS);
  const rate = load<f64>(generator, GEN_RATE);
  const began = load<f64>(generator, GEN_BEGAN_NS);
  // What was due before the end is still sent after it.
  const until = ends != 0 ? min(now, ends) : now;
  let due: u64 = GEN_BURST_MAX;
  let roomLeft = ROOM_LEFT;
  if (rate != 0) {
    const next = load<f64>(generator, GEN_NEXT_NS);
    if (now < next) return next;
    roomLeft = TX_QUEUE_ENTRIES - PACED_WAITING;
    const target = <u64> ((until - began) * rate) + 1;
    due = target > sent ? min(target - sent, <u64> GEN_BURST_MAX) : 0;
  }
  if (wanted != 0) due = min(due, wanted - sent);
  const window = load<u32>(generator, GEN_WINDOW);
  if (window != 0) {
    // What is older than a frame that came back does not come any more.
    const away = sent - min(sent, flowNext(load<u32>(generator, GEN_FLOW), load<u32>(generator, GEN_TO)));
    const open: u64 = away < <u64> window ? window - away : now - load<f64>(generator, GEN_LAST_NS) > WINDOW_LOST_NS ? 1 : 0;
    due = min(due, open);
  }
  const up = load<u32>(GC, GC_LINK) != 0;
  const over = (wanted != 0 && sent >= wanted) || (ends != 0 && now >= ends && (rate == 0 || due == 0 || !up));
  if (over) {
    atomic.store<u32>(generator + GEN_STATE, STATE_DONE);
    return Infinity;
  }
  // A full window opens when something comes in.
  if (due == 0) return window != 0 ? now + WINDOW_LOOK_NS : rate == 0 ? now : began + <f64> sent / rate;
  if (!up || load<u32>(GC, GC_RUNNING) == 0) return now + ARP_RETRY_NS;
  const dst = resolve(load<u32>(generator, GEN_TO));
  if (dst == 0) return now + ARP_RETRY_NS;
  setOutPair(load<u32>(generator, GEN_FLOW));
  let n: u64 = 0;
  while (n < due && queueRoom() > roomLeft) {
    if (!send(generator, dst, sent + n, now)) break;
    n++;
  }
  store<u64>(generator, sent + n, GEN_SENT);
  if (n != 0) store<f64>(generator, now, GEN_LAST_NS);
  if (rate == 0) return now;
  const next = now + <f64> n / (rate * CATCH_UP);
  store<f64>(generator, next, GEN_NEXT_NS);
  return next;
}

function send(generator: usize, dst: u64, sequence: u64, now: f64): bool {
  const to = load<u32>(generator, GEN_TO);
  const n = load<u32>(generator, GEN_BYTES) - linkHeaderBytes() - IPV4_BYTES;
  const at = beginPacket(dst, to, PROTOCOL_UDP, n);
  if (at == 0) return false;
  const payload = at + UDP_BYTES;
  const flow = load<u32>(generator, GEN_FLOW);
  store<u32>(payload, PROBE_MAGIC);
  store<u32>(payload, flow, 4);
  store<u64>(payload, sequence, 8);
  store<f64>(payload, now, 16);
  let sum = <u64> PROBE_MAGIC + flow + sumOf(sequence) + sumOf(reinterpret<u64>(now));
  // The rest differs from frame to frame, so that a frame made of two would not pass its checksum.
  const rest = n - UDP_BYTES - PROBE_BYTES;
  const word = sequence * 0x9e3779b97f4a7c15;
  let i: u32 = 0;
  let words = i64x2.replace_lane(i64x2.splat(word), 1, word + 8);
  let sums = i32x4.splat(0);
  for (; i + 16 <= rest; i += 16) {
    v128.store(payload + PROBE_BYTES + i, words);
    sums = i32x4.add(sums, i32x4.extadd_pairwise_i16x8_u(words));
    words = i64x2.add(words, i64x2.splat(16));
  }
  sum += sumOfLanes(sums);
  for (; i + 8 <= rest; i += 8) {
    store<u64>(payload + PROBE_BYTES + i, word + i);
    sum += sumOf(word + i);
  }
  for (; i < rest; i++) {
    store<u8>(payload + PROBE_BYTES + i, <u8> i);
    sum += (i & 0xff) << ((i & 1) << 3);
  }
  writeUdpHeader(at, to, load<u32>(generator, GEN_SOURCE_PORT), load<u32>(generator, GEN_PORT), n, sum);
  endPacket(n);
  return true;
}
