/**
 * Fields of the engine's records do not overlap. A field's width is what the engine's source reads and writes it as, so
 * that a u64 beside a field that begins in its upper half is found: a guest could choose that half.
 */
import { assert, assertEquals } from "@std/assert";
import * as layout from "../../shared/layout/nic.ts";

const ENGINE = new URL("../../assembly/engine/", import.meta.url);

const BYTES: Record<string, number> = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4, f32: 4, u64: 8, i64: 8, f64: 8 };

/** Records, by the prefix of their fields' names. */
const RECORDS = ["Q", "P", "B", "CTL", "R", "N", "G", "O"];

/** Fields that share a place: no queue or frame has both. */
const SHARED = ["Q_BUFFERS Q_INFLIGHT", "Q_BUFFERS_IOVA Q_INFLIGHT_IOVA", "R_ID R_REPORT"];

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
