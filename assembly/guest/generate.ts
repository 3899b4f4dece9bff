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
  GEN_SEGMENT,
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
import { beginPacket, endPacket, IPV4_BYTES, leaveDatagrams, leaveSum, PROTOCOL_UDP } from "./packet.ts";
import { cuts, sums } from "./path.ts";
import { UDP_BYTES, UDP_CHECKSUM, writeOpenUdpHeader, writeUdpHeader } from "./udp.ts";

/** Entries of the transmit queue that a generator leaves for everybody else. */
const ROOM_LEFT: u32 = 1024;
/** Frames of a generator with a rate that wait in the transmit queue. What is due waits outside, and is caught up with. */
const PACED_WAITING: u32 = 128;
/** How many times its rate a generator sends at while it catches up. */
const CATCH_UP: f64 = 4;
const PACKET_BYTES_MAX: u32 = 65535;
/**
 * Datagrams from this length on leave their sum to the data path: those that do not fit into one buffer. To tell a device
 * that the sum of a shorter one is missing, and to tell its receiver, takes longer than both sums (the engine takes 120 ns
 * more for such a frame; to sum 1500 bytes takes about 50).
 */
const OPEN_BYTES: u32 = 2048;
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
    const out = send(generator, dst, sent + n, due - n, now);
    if (out == 0) break;
    n += out;
  }
  store<u64>(generator, sent + n, GEN_SENT);
  if (n != 0) store<f64>(generator, now, GEN_LAST_NS);
  if (rate == 0) return now;
  const next = now + <f64> n / (rate * CATCH_UP);
  store<f64>(generator, next, GEN_NEXT_NS);
  return next;
}

/** Datagrams of `n` bytes that one frame to be cut may carry: it is at most as long as an IP packet. */
@inline
function together(n: u32): u32 {
  return min((PACKET_BYTES_MAX - IPV4_BYTES - UDP_BYTES) / (n - UDP_BYTES), <u32> GEN_BURST_MAX);
}

/** Sends frame `sequence`, and with it up to `due` if they may go out as one; answers how many, 0 if there is no room. */
function send(generator: usize, dst: u64, sequence: u64, due: u64, now: f64): u64 {
  const to = load<u32>(generator, GEN_TO);
  const n = load<u32>(generator, GEN_BYTES) - linkHeaderBytes() - IPV4_BYTES;
  const each = n - UDP_BYTES;
  let many: u32 = 1;
  if (due > 1 && load<u32>(generator, GEN_SEGMENT) != 0 && cuts()) many = <u32> min(due, <u64> together(n));
  const length = UDP_BYTES + many * each;
  const at = beginPacket(dst, to, PROTOCOL_UDP, length);
  if (at == 0) return 0;
  const open = many > 1 || (n >= OPEN_BYTES && sums());
  let sum: u64 = 0;
  for (let i: u32 = 0; i < many; i++) {
    const payload = at + UDP_BYTES + i * each;
    if (open) fill(generator, payload, each, sequence + i, now);
    else sum = fillSummed(generator, payload, each, sequence, now);
  }
  const sourcePort = load<u32>(generator, GEN_SOURCE_PORT);
  const port = load<u32>(generator, GEN_PORT);
  if (open) writeOpenUdpHeader(at, to, sourcePort, port, length);
  else writeUdpHeader(at, to, sourcePort, port, length, sum);
  if (many > 1) leaveDatagrams(UDP_CHECKSUM, each, UDP_BYTES, many);
  else if (open) leaveSum(UDP_CHECKSUM);
  endPacket(length);
  return many;
}

@inline
function writeProbe(payload: usize, flow: u32, sequence: u64, now: f64): void {
  store<u32>(payload, PROBE_MAGIC);
  store<u32>(payload, flow, 4);
  store<u64>(payload, sequence, 8);
  store<f64>(payload, now, 16);
}

/** What the rest of a probe is made of. It differs from frame to frame, so that a frame made of two would not pass. */
@inline
function restOf(sequence: u64): u64 {
  return sequence * 0x9e3779b97f4a7c15;
}

/** Writes a probe of `n` bytes. */
function fill(generator: usize, payload: usize, n: u32, sequence: u64, now: f64): void {
  writeProbe(payload, load<u32>(generator, GEN_FLOW), sequence, now);
  const at = payload + PROBE_BYTES;
  const rest = n - PROBE_BYTES;
  const word = restOf(sequence);
  let i: u32 = 0;
  let words = i64x2.replace_lane(i64x2.splat(word), 1, word + 8);
  for (; i + 16 <= rest; i += 16) {
    v128.store(at + i, words);
    words = i64x2.add(words, i64x2.splat(16));
  }
  for (; i + 8 <= rest; i += 8) store<u64>(at + i, word + i);
  for (; i < rest; i++) store<u8>(at + i, <u8> i);
}

/** As `fill`, and answers the probe's sum. */
function fillSummed(generator: usize, payload: usize, n: u32, sequence: u64, now: f64): u64 {
  const flow = load<u32>(generator, GEN_FLOW);
  writeProbe(payload, flow, sequence, now);
  let sum = <u64> PROBE_MAGIC + flow + sumOf(sequence) + sumOf(reinterpret<u64>(now));
  const at = payload + PROBE_BYTES;
  const rest = n - PROBE_BYTES;
  const word = restOf(sequence);
  let i: u32 = 0;
  let words = i64x2.replace_lane(i64x2.splat(word), 1, word + 8);
  let sums = i32x4.splat(0);
  for (; i + 16 <= rest; i += 16) {
    v128.store(at + i, words);
    sums = i32x4.add(sums, i32x4.extadd_pairwise_i16x8_u(words));
    words = i64x2.add(words, i64x2.splat(16));
  }
  sum += sumOfLanes(sums);
  for (; i + 8 <= rest; i += 8) {
    store<u64>(at + i, word + i);
    sum += sumOf(word + i);
  }
  for (; i < rest; i++) {
    store<u8>(at + i, <u8> i);
    sum += (i & 0xff) << ((i & 1) << 3);
  }
  return sum;
}
