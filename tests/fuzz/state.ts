/**
 * The engine's own state under the fuzzer: what no guest may change. A snapshot of everything below the windows is
 * compared, but for what the engine itself is known to write; and its lists and positions must be within their bounds.
 */
import * as L from "../../shared/layout/nic.ts";
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import type { AnyRigGuest, EngineRig } from "../support/engine_rig.ts";
import { sameBytes } from "../support/same_bytes.ts";

type Range = readonly [from: number, to: number];

const field = (at: number, bytes = 4): Range => [at, at + bytes];

/** What the engine writes of a queue's entry: the rest stays as its start has left it. */
const QUEUE_WRITTEN: readonly Range[] = [
  ...[field(L.Q_STATE), field(L.Q_LAST_AVAIL, 8), [L.Q_REGION_IOVA, L.Q_REGION_WINDOW + 4] as const],
  ...[[L.Q_SIGNALLED, L.Q_GROUP + 4] as const, field(L.Q_FRAMES, 8), field(L.Q_CALL_PENDING), field(L.Q_ERROR)],
  ...[
    field(L.Q_ERROR_DETAIL, 8),
    field(L.Q_IDLE_KICKS),
    field(L.Q_BATCH_MOST),
    field(L.Q_WORKED_NS, 8),
    field(L.Q_HEAT),
  ],
  ...[[L.Q_CALLS, L.Q_OFFLOADS] as const, field(L.Q_SEGMENTS_DONE, 2)],
];

/** What the engine writes of a pool: the rest is policy, lists of queues, and its dirty log. */
const POOL_WRITTEN: readonly Range[] = [
  ...[field(L.P_TOKENS, 16), [L.P_DEFICIT, L.P_LEARNED + 4] as const],
  ...[[L.P_CREDITED_PASS, L.P_RECEIVE_NS + 8] as const, field(L.P_BROADCAST_RATE + 8, 16)],
  ...[[L.P_BUFFERED, L.P_BLOCKED_GENERATION + 4] as const, [L.P_LATENCY, L.P_SAMPLE_NS + 8] as const],
];

/** Scratch memory of a batch. */
const SCRATCH_WRITTEN: readonly Range[] = [
  field(L.TX_SEGMENTS, L.SEGMENTS_MAX * L.SEGMENT_STRIDE),
  field(L.RX_SEGMENTS, L.SEGMENTS_MAX * L.SEGMENT_STRIDE),
  field(L.DIRTY_LIST, 1024),
  field(L.BATCH, 168),
  [L.FRAME_HEAD, L.ANNOUNCEMENT],
  field(L.RX_CHAINS, L.RX_CHAINS_MAX * 12),
  field(L.OUT_HEAD, L.HEAD_COPY_BYTES_MAX + 4 + 12),
  field(L.RECORDS, (L.BATCH_FRAMES + 1) * L.RECORD_STRIDE),
  field(L.DELIVERIES, L.DELIVERY_COUNT * L.DELIVERY_STRIDE),
  field(L.MIRROR_DELIVERIES, L.MIRROR_DELIVERY_COUNT * L.DELIVERY_STRIDE),
  field(L.GROUPS, L.GROUP_COUNT * L.GROUP_STRIDE),
  field(L.STAGED, L.STAGED_COUNT * L.STAGED_STRIDE),
  field(L.HEAD_COPIES, (L.BATCH_FRAMES + 1) * L.HEAD_COPY_STRIDE),
  field(L.SEGMENT_PIECES, (L.GSO_PIECES_MAX + 1) * L.SEGMENT_STRIDE),
  field(L.BUFFERED_LIST, L.POOL_COUNT * 4),
];

/** What lies between some ranges, up to `end`. */
function constant(ranges: readonly Range[], end: number): Range[] {
  const kept: Range[] = [];
  let at = 0;
  for (const [from, to] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (from > at) kept.push([at, from]);
    at = Math.max(at, to);
  }
  kept.push([at, end]);
  return kept;
}

/** The state of one rig's engine. */
export class EngineState {
  readonly #rig: EngineRig;
  readonly #guests: readonly AnyRigGuest[];
  readonly #memory: Uint8Array;
  readonly #constant: readonly Range[];
  #before: Uint8Array;

  constructor(rig: EngineRig, guests: readonly AnyRigGuest[]) {
    this.#rig = rig;
    this.#guests = guests;
    this.#memory = new Uint8Array(rig.view.buffer, 0, L.WINDOWS);
    const moved = (ranges: readonly Range[], by: number) => ranges.map(([from, to]): Range => [from + by, to + by]);
    const pools = Array.from({ length: L.POOL_COUNT }, (_, pool) => pool);
    this.#constant = constant([
      field(L.CTL, 4096),
      ...[field(L.HOT_LIST, 256), field(L.CALL_LIST, 256), field(L.DEFERRED_LIST, 256)],
      ...SCRATCH_WRITTEN,
      ...pools.flatMap((pool) => moved(POOL_WRITTEN, L.POOLS + pool * L.POOL_STRIDE)),
      field(L.FILTERS, L.FILTER_COUNT * L.FILTER_STRIDE),
      ...guests.flatMap(({ pool, queuePointer }) => [
        ...[0, 1].flatMap((index) => moved(QUEUE_WRITTEN, queuePointer(index))),
        field(L.FLOW_TABLES + pool * L.FLOW_TABLE_STRIDE, L.FLOW_TABLE_STRIDE),
        field(L.REGISTER_PAGES + pool * ADV_PAGE_BYTES, ADV_PAGE_BYTES),
        field(L.DECISIONS + pool * L.DECISIONS_PER_POOL * L.DECISION_STRIDE, L.DECISIONS_PER_POOL * L.DECISION_STRIDE),
        ...[0, 1].map((index) => field(L.OFFLOAD_CONTEXTS + ((queuePointer(index) - L.QUEUES) >> 4), 16)),
      ]),
      [L.CAPTURES, L.CAPTURE_OPTIONS],
    ], L.WINDOWS);
    this.#before = this.#memory.slice();
  }

  /** Takes what is there now for what is to stay: the control side has changed something. */
  renew(): void {
    this.#before = this.#memory.slice();
  }

  /** Throws if anything has changed that stays, or is out of bounds. */
  check(): void {
    this.checkBounds();
    for (const [from, to] of this.#constant) {
      if (sameBytes(this.#memory.subarray(from, to), this.#before.subarray(from, to))) continue;
      let at = from;
      while (this.#memory[at] === this.#before[at]) at++;
      throw new Error(`the engine's state has changed at 0x${at.toString(16)}`);
    }
  }

  /** Throws if a list is longer than it may be, or a queue's position is none. Nothing is under way. */
  checkBounds(): void {
    const { view } = this.#rig;
    const u32 = (at: number) => view.getUint32(at, true);
    const most = (name: string, value: number, limit: number) => {
      if (value > limit) throw new Error(`${name} is ${value}, and may be ${limit}`);
    };
    const queues = this.#guests.length * 2;
    most("CTL_HOT_COUNT", u32(L.CTL + L.CTL_HOT_COUNT), queues);
    most("CTL_COLD_COUNT", u32(L.CTL + L.CTL_COLD_COUNT), queues);
    most("CTL_CALL_COUNT", u32(L.CTL + L.CTL_CALL_COUNT), queues);
    most("CTL_DEFERRED_COUNT", u32(L.CTL + L.CTL_DEFERRED_COUNT), queues);
    most("CTL_BUFFERED_COUNT", u32(L.CTL + L.CTL_BUFFERED_COUNT), this.#guests.length);
    for (const name of ["B_DIRTY", "B_STAGED", "B_GROUPS", "B_COMMIT"] as const) most(name, u32(L.BATCH + L[name]), 0);
    most("B_SEGMENTS", u32(L.BATCH + L.B_SEGMENTS), L.SEGMENTS_MAX);
    for (const { pool, queuePointer } of this.#guests) {
      for (const index of [0, 1]) {
        const q = queuePointer(index);
        const where = `of queue ${index} of pool ${pool}`;
        most(`Q_DIRTY ${where}`, u32(q + L.Q_DIRTY), 0);
        most(`Q_GROUP ${where}`, u32(q + L.Q_GROUP), 0);
        most(`Q_STATE ${where}`, u32(q + L.Q_STATE), L.QUEUE_ERROR);
        if (u32(q + L.Q_FLAVOUR) === L.FLAVOUR_SPLIT) continue;
        const size = u32(q + L.Q_SIZE);
        most(`Q_LAST_AVAIL ${where}`, u32(q + L.Q_LAST_AVAIL), size - 1);
        if (u32(q + L.Q_FLAVOUR) !== L.FLAVOUR_PACKED) continue;
        most(`Q_USED_IDX ${where}`, u32(q + L.Q_USED_IDX), size - 1);
        most(`Q_WRAP ${where}`, u32(q + L.Q_WRAP), 7);
        if (u32(q + L.Q_FIRST_SLOT) !== 0xffffffff) throw new Error(`Q_FIRST_SLOT ${where} is not published`);
      }
    }
  }
}
