/**
 * Fields of the engine's records do not overlap. A field's width is what the engine's source reads and writes it as, so
 * that a u64 beside a field that begins in its upper half is found: a guest could choose that half.
 */
import { assert, assertEquals } from "@std/assert";
import { ALLOWED_IPS_MAX } from "../../shared/api/mod.ts";
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import { COUNTERS } from "../../shared/layout/counter_names.ts";
import * as layout from "../../shared/layout/nic.ts";

const ENGINE = new URL("../../assembly/engine/", import.meta.url);

const BYTES: Record<string, number> = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8 };

/** Records, by the prefix of their fields' names. */
const RECORDS = ["Q", "P", "B", "CTL", "R", "N", "G", "O"];

/** Fields that share a place: no queue or frame has both. */
const SHARED = ["Q_BUFFERS Q_INFLIGHT", "Q_BUFFERS_IOVA Q_INFLIGHT_IOVA", "R_ID R_REPORT", "Q_GROUP Q_HELD_PASS"];

/** Neighbours that are read or written in one access, on purpose. */
const TOGETHER = [
  ...["Q_DEFERRED_FRAMES Q_DEFERRED_FIRST", "P_WATCH P_MIRROR", "B_GROUPS B_DELIVERIES"],
  ...["B_DELIVERED B_DELIVERED_BYTES", "B_NO_BUFFER B_TOO_SMALL", "B_QUEUE_ERROR B_MULTICAST", "B_BROADCAST B_DONE"],
  ...["R_DATA R_LENGTH", "R_SEGMENTS R_FLAGS", "R_SEGMENTS R_DROP", "R_DESCRIPTORS R_CONTEXTS"],
  ...["N_RECORD N_NEXT", "N_HEAD N_COUNT", "N_HEAD N_TAG"],
];

function sources(folder: URL): string[] {
  return [...Deno.readDirSync(folder)].flatMap((entry) =>
    entry.isDirectory
      ? sources(new URL(`${entry.name}/`, folder))
      : [Deno.readTextFileSync(new URL(entry.name, folder))]
  );
}

/** The last argument of a call whose parenthesis opens before `start`. */
function lastArgument(text: string, start: number): string {
  let [depth, from] = [0, start];
  for (let i = start; i < text.length; i++) {
    const c = text[i];
    if (c === "(") depth++;
    else if (c === ")" && depth-- === 0) return text.slice(from, i).trim().replace(/,$/, "");
    else if (c === "," && depth === 0 && text.slice(i + 1).trimStart()[0] !== ")") from = i + 1;
  }
  throw new Error("a call has no end");
}

/** Widest access to each field, in bytes, by its name. */
function widths(): Map<string, number> {
  const found = new Map<string, number>();
  for (const text of sources(ENGINE)) {
    for (const access of text.matchAll(/\b(?:load|store|atomic\.\w+)<(\w+)>\(/g)) {
      const name = lastArgument(text, access.index + access[0].length);
      const bytes = BYTES[access[1] ?? ""];
      if (bytes && /^[A-Z]+_[A-Z0-9_]+$/.test(name)) found.set(name, Math.max(found.get(name) ?? 0, bytes));
    }
  }
  return found;
}

const constants: Record<string, unknown> = layout;
const fields = [...widths()].flatMap(([name, bytes]) => {
  const at = constants[name];
  return typeof at === "number" ? [{ name, at, bytes }] : [];
});

for (const record of RECORDS) {
  Deno.test(`layout: fields ${record}_* do not overlap`, () => {
    const own = fields.filter(({ name }) => name.startsWith(`${record}_`)).sort((a, b) => a.at - b.at);
    assert(own.length > 1, "the engine's source names them");
    const overlaps = own.flatMap((a, i) =>
      own.slice(i + 1).filter((b) => b.at < a.at + a.bytes).map((b) => `${a.name} ${b.name}`)
    );
    assertEquals(overlaps.filter((pair) => ![...SHARED, ...TOGETHER].includes(pair)), []);
  });
}

// Regions of the map ------------------------------------------------------------------------------------------------

const L = layout;
const QUEUES_MAX = L.POOL_COUNT * L.QUEUES_PER_POOL;
/** A driver pair and a packet buffer, or a hold, for each pool, beside its queues. */
const ENTRIES_MAX = QUEUES_MAX + 4 * L.POOL_COUNT;
/** Copies of heads and headers are written in moves of 16 bytes. */
const MOVE = 16;

/** Every region of the engine's state, with all that may ever lie in it. */
const REGIONS: Record<string, readonly [at: number, bytes: number]> = {
  "null page": [0, L.CTL],
  CTL: [L.CTL, 4096],
  ACTIVE_LIST: [L.ACTIVE_LIST, 4 * (L.POOL_COUNT * (L.QUEUE_PAIRS_MAX + 2))],
  HOT_LIST: [L.HOT_LIST, 4 * (L.POOL_COUNT * (L.QUEUE_PAIRS_MAX + 2))],
  CALL_LIST: [L.CALL_LIST, 4 * ENTRIES_MAX],
  POOLS: [L.POOLS, L.POOL_COUNT * L.POOL_STRIDE],
  DEFERRED_LIST: [L.DEFERRED_LIST, 4 * ENTRIES_MAX],
  FLOW_TABLES: [L.FLOW_TABLES, L.POOL_COUNT * L.FLOW_TABLE_STRIDE],
  VLAN_BITMAPS: [L.VLAN_BITMAPS, L.POOL_COUNT * L.VLAN_BITMAP_STRIDE],
  DOMAINS: [L.DOMAINS, L.POOL_COUNT * L.DOMAIN_STRIDE],
  FILTERS: [L.FILTERS, L.FILTER_COUNT * L.FILTER_STRIDE],
  QUEUES: [L.QUEUES, QUEUES_MAX * L.QUEUE_STRIDE],
  TX_SEGMENTS: [L.TX_SEGMENTS, L.SEGMENTS_MAX * L.SEGMENT_STRIDE],
  RX_SEGMENTS: [L.RX_SEGMENTS, L.SEGMENTS_MAX * L.SEGMENT_STRIDE],
  DIRTY_LIST: [L.DIRTY_LIST, 4 * ENTRIES_MAX],
  BATCH: [L.BATCH, 168],
  FRAME_HEAD: [L.FRAME_HEAD, L.HEAD_BYTES_MAX + MOVE],
  OUT_VIRTIO_HDR: [L.OUT_VIRTIO_HDR, 12],
  SPLIT_HEAD: [L.SPLIT_HEAD, L.SPLIT_HEAD_BYTES],
  ONE_SEGMENT: [L.ONE_SEGMENT, L.SEGMENT_STRIDE],
  ONE_DECISION: [L.ONE_DECISION, L.DECISION_STRIDE],
  ANNOUNCEMENT: [L.ANNOUNCEMENT, L.FRAME_BYTES_LEAST],
  RX_CHAINS: [L.RX_CHAINS, L.RX_CHAINS_MAX * 12],
  OUT_HEAD: [L.OUT_HEAD, L.HEAD_COPY_BYTES_MAX + 4 + MOVE],
  RECORDS: [L.RECORDS, (L.BATCH_FRAMES + 1) * L.RECORD_STRIDE],
  DELIVERIES: [L.DELIVERIES, L.DELIVERY_COUNT * L.DELIVERY_STRIDE],
  GROUPS: [L.GROUPS, L.GROUP_COUNT * L.GROUP_STRIDE],
  STAGED: [L.STAGED, L.STAGED_COUNT * L.STAGED_STRIDE],
  HEAD_COPIES: [L.HEAD_COPIES, (L.BATCH_FRAMES + 1) * L.HEAD_COPY_STRIDE],
  SEGMENT_PIECES: [L.SEGMENT_PIECES, (L.GSO_PIECES_MAX + 1) * L.SEGMENT_STRIDE],
  HELD_LIST: [L.HELD_LIST, 4 * L.HELD_COUNT],
  BUFFERED_LIST: [L.BUFFERED_LIST, 4 * L.POOL_COUNT],
  REGISTER_PAGES: [L.REGISTER_PAGES, L.POOL_COUNT * ADV_PAGE_BYTES],
  MULTICAST_TABLES: [L.MULTICAST_TABLES, L.POOL_COUNT * L.MULTICAST_TABLE_STRIDE],
  DRIVER_PAIRS: [L.DRIVER_PAIRS, L.POOL_COUNT * L.DRIVER_PAIR_STRIDE],
  ADDRESS_TABLES: [L.ADDRESS_TABLES, L.POOL_COUNT * L.ADDRESS_TABLE_STRIDE],
  OFFLOAD_CONTEXTS: [L.OFFLOAD_CONTEXTS, QUEUES_MAX * L.OFFLOAD_CONTEXT_STRIDE],
  CAPTURES: [L.CAPTURES, L.CAPTURES_MAX * L.CAPTURE_STRIDE],
  CAPTURE_STATE: [L.CAPTURE_STATE, L.XS_HEAD + L.CAPTURE_HEAD_BYTES + MOVE],
  CAPTURE_OPTIONS: [L.CAPTURE_OPTIONS, L.CAPTURE_OPTION_COUNT * L.CAPTURE_OPTION_STRIDE],
  MIRROR_DELIVERIES: [L.MIRROR_DELIVERIES, L.MIRROR_DELIVERY_COUNT * L.DELIVERY_STRIDE],
  DECISIONS: [L.DECISIONS, L.POOL_COUNT * L.DECISIONS_PER_POOL * L.DECISION_STRIDE],
  windows: [L.WINDOWS, 2 ** 32 - L.WINDOWS],
};

Deno.test("layout: regions do not overlap, whatever may ever lie in them", () => {
  const sorted = Object.entries(REGIONS).toSorted(([, [a]], [, [b]]) => a - b);
  const overlaps = sorted.flatMap(([name, [at, bytes]], i) => {
    const next = sorted[i + 1];
    return next && at + bytes > next[1][0] ? [`${name} ends at 0x${(at + bytes).toString(16)}, in ${next[0]}`] : [];
  });
  assertEquals(overlaps, []);
});

Deno.test("layout: every place of the map is one of these regions", () => {
  const places = ["map", "batch", "capture"].flatMap((file) =>
    [
      ...Deno.readTextFileSync(new URL(`../../shared/layout/engine/${file}.ts`, import.meta.url))
        .matchAll(/^export const ([A-Z_]+) = 0x[0-9a-f]{5,};/gm),
    ].map(([, name]) => name as string)
  );
  assert(places.length > 30, "the map's constants are found");
  assertEquals(places.filter((name) => !(name in REGIONS) && name !== "WINDOWS" && name !== "SCRATCH"), []);
});

/** Tables within a record: where each begins, and where it ends. */
const TABLES: Record<string, readonly [from: number, bytes: number, next: number]> = {
  P_RX_QUEUES: [L.P_RX_QUEUES, 4 * L.QUEUE_PAIRS_MAX, L.P_CREDITED_PASS],
  P_COALESCE: [L.P_COALESCE, 2 * L.COALESCE_STRIDE, L.P_BUFFER],
  P_COUNTERS: [L.P_COUNTERS, 8 * L.COUNTER_COUNT, L.P_BLOCKED_QUEUE],
  P_LOG_USED: [L.P_LOG_USED, 8 * 2 * L.QUEUE_PAIRS_MAX, L.P_WATCH],
  P_LATENCY: [L.P_LATENCY, 8 * L.LATENCY_BUCKETS, L.P_LATENCY_SUM],
  "P_SAMPLE_NS, the last of a pool": [L.P_SAMPLE_NS, 8, L.POOL_STRIDE],
  "Q_SEGMENTS_DONE, the last of a queue": [L.Q_SEGMENTS_DONE, 2, L.QUEUE_STRIDE],
  "R_DELIVERY, the last of a record": [L.R_DELIVERY, L.DELIVERY_STRIDE, L.RECORD_STRIDE],
  "O_DONE, the last behind a head's copy": [L.O_DONE, 4, L.HEAD_COPY_STRIDE],
  "a head's copy": [0, L.HEAD_COPY_BYTES_MAX, L.O_HEADER],
  CTL_FAULTS: [L.CTL_FAULTS, L.FAULTS_BYTES, L.CTL_HOT_COUNT],
  "a domain": [0, L.REGIONS_MAX * L.REGION_STRIDE, L.DOMAIN_STRIDE],
  "a driver pair": [0, 2 * L.QUEUE_STRIDE, L.DRIVER_PAIR_STRIDE],
  "an address table": [0, 16 * L.ADDRESS_STRIDE, L.ADDRESS_TABLE_STRIDE],
  "a filter's head": [L.XS_META + L.XM_PORTS, 4, L.XS_HEAD],
};

Deno.test("layout: tables within a record end before what follows them", () => {
  const over = Object.entries(TABLES).filter(([, [from, bytes, next]]) => from + bytes > next);
  assertEquals(over.map(([name]) => name), []);
});

Deno.test("layout: what the engine relies on, and the counters have their names", () => {
  const control = Object.entries(layout).filter(([name]) => name.startsWith("CTL_")).map(([, offset]) =>
    Number(offset)
  );
  const faults = [layout.CTL_FAULTS, layout.CTL_FAULTS + layout.FAULTS_BYTES] as const;
  assert(control.every((offset) => offset === faults[0] || offset + 8 <= faults[0] || offset >= faults[1]));
  assertEquals(COUNTERS.length, layout.COUNTER_COUNT);
  assertEquals(layout.HEAD_COPY_STRIDE, 4 * layout.RECORD_STRIDE);
  assertEquals(layout.OFFLOAD_CONTEXT_STRIDE, layout.QUEUE_STRIDE / 16);
  assertEquals(layout.HEAD_COPY_BYTES_MAX, layout.O_HEADER);
  // A length and what it stands for are each kept in a byte (deliver/head.ts).
  assert(layout.HEAD_COPY_BYTES_MAX + 4 < 256);
  assertEquals(layout.ADDRESS_TABLE_STRIDE, ALLOWED_IPS_MAX * layout.ADDRESS_STRIDE);
  assert(layout.P_COUNTERS + layout.COUNTER_COUNT * 8 <= layout.POOL_STRIDE);
  const offsets = Object.entries(layout).filter(([name]) => name.startsWith("C_")).sort((a, b) =>
    Number(a[1]) - Number(b[1])
  );
  assertEquals(
    offsets.map(([name, offset]) => [name.slice(2).toLowerCase(), offset]),
    COUNTERS.map(([name], i) => [name, i * 8]),
  );
});
