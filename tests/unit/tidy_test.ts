/** The rules of the house that a machine can keep: who imports whom, sizes of files, no data in the Wasm. */
import { assert, assertEquals } from "@std/assert";
import { ALLOWED_IPS_MAX } from "../../shared/api/mod.ts";
import { COUNTER_COUNT } from "../../shared/layout/nic.ts";
import { COUNTERS } from "../../shared/layout/counter_names.ts";
import * as layout from "../../shared/layout/nic.ts";
import { WASM_MODULES, wasmUrl } from "../../shared/wasm/load.ts";

const ROOT = new URL("../../", import.meta.url);
/** Lines of a source file, and of a test. */
const LINES_MAX = 300;
const TEST_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;
const PARAMETERS_MAX = 6;
/** Loops that keep a ring in locals, and are longer than a function may be: calls would take what they save. */
const LOOPS = ["assembly/engine/queue/split_scatter.ts scatterSplit"];
const LOOP_LINES_MAX = 90;
const LINE_BYTES_MAX = 140;

function files(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap((entry) => {
    if (entry.isDirectory) return files(`${folder}${entry.name}/`);
    return /\.(ts|js)$/.test(entry.name) ? [folder + entry.name] : [];
  });
}

function imports(path: string): string[] {
  const text = Deno.readTextFileSync(new URL(path, ROOT));
  return [...text.matchAll(/from\s+"(\.[^"]+)"/g)].map(([, target]) =>
    new URL(target ?? "", new URL(path, ROOT)).pathname.slice(ROOT.pathname.length)
  );
}

/** Whether `from` may import `to`. */
function allowed(from: string, to: string): boolean {
  const [top, second] = from.split("/");
  if (top === "tests") return true;
  if (top === "assembly") {
    const [, module] = from.split("/");
    return to.startsWith(`assembly/${module}/`) || to.startsWith("assembly/lib/") || to.startsWith("shared/layout/");
  }
  if (from.startsWith("shared/layout/")) return to.startsWith("shared/layout/");
  if (top === "shared") {
    // An engine's control side takes policy in the API's words, queues in the device socket's, loads the Wasm, and hands
    // out captures as files are.
    if (second === "engine" && /^shared\/(api|device|pcap|wasm)\//.test(to)) return true;
    // A netdev port attaches by the device socket, loads the Wasm, and may have capture files behind it.
    if (second === "netdev" && /^shared\/(device|pcap|wasm)\//.test(to)) return true;
    // The build signs the plugins it has built.
    if (from === "shared/wasm/build.ts" && to.startsWith("shared/plugin/")) return true;
    return to.startsWith(`shared/${second}/`) || to.startsWith("shared/layout/") || to.startsWith("shared/os/");
  }
  // The command line says its version and which compiler a new plugin is built with, and is installed with the
  // permissions that its task has.
  if (/^services\/cli\/(main|install)\.ts$/.test(from) && to === "deno.json") return true;
  return to.startsWith(`services/${second}/`) || to.startsWith("shared/");
}

const sources = ["assembly/", "shared/", "services/", "tests/"].flatMap(files);

Deno.test("modules import only what the design lets them", () => {
  const broken = sources.flatMap((from) =>
    imports(from).filter((to) => !allowed(from, to)).map((to) => `${from} -> ${to}`)
  );
  assertEquals(broken, []);
});

Deno.test("files stay readable: lines, and how many of them", () => {
  const broken = sources.flatMap((path) => {
    const lines = Deno.readTextFileSync(new URL(path, ROOT)).split("\n");
    const linesMax = path.startsWith("tests/") ? TEST_LINES_MAX : LINES_MAX;
    const long = lines.findIndex((line) => line.length > LINE_BYTES_MAX);
    return [
      ...(lines.length - 1 > linesMax ? [`${path} has ${lines.length - 1} lines`] : []),
      ...(long >= 0 && !path.includes("tests/") ? [`${path}:${long + 1} is too long`] : []),
    ];
  });
  assertEquals(broken, []);
});

/** Functions and methods of a source: where they begin, what they take, how many lines they have. */
function functions(path: string): { at: string; parameters: number; lines: number }[] {
  const lines = Deno.readTextFileSync(new URL(path, ROOT)).split("\n");
  return lines.flatMap((line, i) => {
    const start = /^( *)(?:export )?(?:static |override |protected |async )*(?:function )?(#?\w+)\(/.exec(line);
    const isOne = start && (/function /.test(line) || (start[1] === "  " && /[{(]$/.test(line)));
    if (!isOne || /^ *(if|for|while|switch|return|super)\b/.test(line)) return [];
    const end = lines.findIndex((other, k) => k > i && other.startsWith(`${start[1]}}`));
    const list = /^[^(]*\((.*)\)(?:: [^{]*)? \{$/.exec(line)?.[1] ?? "";
    const parameters = list.replaceAll(/[{[<(][^{}[\]<>()]*[}\]>)]/g, "").split(",").filter((part) =>
      part.trim()
    ).length;
    return [{ at: `${path}:${i + 1} ${start[2]}`, parameters, lines: end - i + 1 }];
  });
}

Deno.test("functions stay readable: their lines, and what they take", () => {
  const all = sources.filter((path) => !path.startsWith("tests/")).flatMap(functions);
  assert(all.length > 1000, `${all.length} functions were found`);
  const linesMax = (at: string) => LOOPS.includes(at.replace(/:\d+/, "")) ? LOOP_LINES_MAX : FUNCTION_LINES_MAX;
  assertEquals(all.filter(({ at, lines }) => lines > linesMax(at)), []);
  assertEquals(all.filter(({ parameters }) => parameters > PARAMETERS_MAX), []);
});

Deno.test("no module imports itself by way of others", () => {
  const graph = new Map(sources.map((path) => [path, imports(path)]));
  const done = new Set<string>();
  const circles: string[] = [];
  const visit = (path: string, way: string[]): void => {
    if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path].join(" -> "));
    if (done.has(path) || way.includes(path)) return;
    for (const next of graph.get(path) ?? []) visit(next, [...way, path]);
    done.add(path);
  };
  for (const path of sources) visit(path, []);
  assertEquals(circles, []);
});

Deno.test("what a module exports, another one reads", () => {
  const words = new Map(sources.map((path) => {
    const code = Deno.readTextFileSync(new URL(path, ROOT)).replaceAll(/\/\*[^]*?\*\/|\/\/.*/g, "");
    return [path, new Set(code.match(/\w+/g))];
  }));
  const unread = sources.flatMap((path) => {
    const text = Deno.readTextFileSync(new URL(path, ROOT));
    const exported = text.matchAll(/^export (?:async |abstract )*(?:const|let|function\*?|class) (\w+)/gm);
    return [...exported].map(([, name]) => name ?? "").filter((name) =>
      !sources.some((other) => other !== path && words.get(other)?.has(name))
    ).map((name) => `${path} ${name}`);
  });
  assertEquals(unread, []);
});

Deno.test("every file opens with what it is", () => {
  const bare = sources.filter((path) => !/^\s*\/[*/]/.test(Deno.readTextFileSync(new URL(path, ROOT))));
  assertEquals(bare, []);
});

Deno.test("only shared/os calls the C library", () => {
  const callers = sources.filter((path) =>
    !path.startsWith("shared/os/") && /Deno\.dlopen|UnsafeCallback/.test(Deno.readTextFileSync(new URL(path, ROOT)))
  );
  assertEquals(callers, ["tests/unit/tidy_test.ts"]);
});

Deno.test("the engines have no data section and no start function: an arena is never written at instantiation", async () => {
  for (const name of WASM_MODULES) {
    const bytes = await Deno.readFile(wasmUrl(name));
    const sections: number[] = [];
    for (let at = 8; at < bytes.length;) {
      sections.push(bytes[at++] ?? 0);
      let [size, shift] = [0, 0];
      for (let more = true; more; shift += 7) {
        const byte = bytes[at++] ?? 0;
        size |= (byte & 0x7f) << shift;
        more = (byte & 0x80) !== 0;
      }
      at += size;
    }
    assert(!sections.includes(11), `${name}.wasm has a data section`);
    assert(!sections.includes(8), `${name}.wasm has a start function`);
  }
});

Deno.test("the layout's sections do not overlap, and the counters have their names", () => {
  const section = (start: number, count: number, stride: number) => [start, start + count * stride] as const;
  const sections = [
    section(layout.CTL, 1, 4096),
    section(layout.ACTIVE_LIST, layout.POOL_COUNT * 16, 4),
    section(layout.HOT_LIST, layout.POOL_COUNT * 16, 4),
    section(layout.CALL_LIST, layout.POOL_COUNT * 32, 4),
    section(layout.POOLS, layout.POOL_COUNT, layout.POOL_STRIDE),
    section(layout.FLOW_TABLES, layout.POOL_COUNT, layout.FLOW_TABLE_STRIDE),
    section(layout.VLAN_BITMAPS, layout.POOL_COUNT, layout.VLAN_BITMAP_STRIDE),
    section(layout.DOMAINS, layout.POOL_COUNT, layout.DOMAIN_STRIDE),
    section(layout.FILTERS, layout.FILTER_COUNT, layout.FILTER_STRIDE),
    section(layout.QUEUES, layout.POOL_COUNT * layout.QUEUES_PER_POOL, layout.QUEUE_STRIDE),
    section(layout.TX_SEGMENTS, layout.SEGMENTS_MAX, layout.SEGMENT_STRIDE),
    section(layout.RX_SEGMENTS, layout.SEGMENTS_MAX, layout.SEGMENT_STRIDE),
    section(layout.DIRTY_LIST, layout.POOL_COUNT * layout.QUEUES_PER_POOL, 4),
    section(layout.BATCH, 1, 256),
    section(layout.FRAME_HEAD, 1, 128),
    section(layout.OUT_VIRTIO_HDR, 1, 16),
    section(layout.SPLIT_HEAD, 1, layout.SPLIT_HEAD_BYTES),
    section(layout.ONE_SEGMENT, 1, layout.SEGMENT_STRIDE),
    section(layout.ONE_DECISION, 1, layout.DECISION_STRIDE),
    section(layout.RX_CHAINS, layout.RX_CHAINS_MAX, 12),
    section(layout.OUT_HEAD, 1, layout.HEAD_COPY_BYTES_MAX + 4),
    // And one beside the batch's: the segment of a frame that is being cut.
    section(layout.RECORDS, layout.BATCH_FRAMES + 1, layout.RECORD_STRIDE),
    section(layout.DELIVERIES, layout.DELIVERY_COUNT, layout.DELIVERY_STRIDE),
    section(layout.GROUPS, layout.GROUP_COUNT, layout.GROUP_STRIDE),
    section(layout.STAGED, layout.STAGED_COUNT, layout.STAGED_STRIDE),
    section(layout.HEAD_COPIES, layout.BATCH_FRAMES + 1, layout.HEAD_COPY_STRIDE),
    section(layout.SEGMENT_PIECES, layout.GSO_PIECES_MAX + 1, layout.SEGMENT_STRIDE),
    section(layout.BUFFERED_LIST, layout.POOL_COUNT, 4),
    section(layout.REGISTER_PAGES, layout.POOL_COUNT, 4096),
    section(layout.MULTICAST_TABLES, layout.POOL_COUNT, layout.MULTICAST_TABLE_STRIDE),
    section(layout.DRIVER_PAIRS, layout.POOL_COUNT, layout.DRIVER_PAIR_STRIDE),
    section(layout.ADDRESS_TABLES, layout.POOL_COUNT, layout.ADDRESS_TABLE_STRIDE),
    section(layout.OFFLOAD_CONTEXTS, layout.POOL_COUNT * layout.QUEUES_PER_POOL, layout.OFFLOAD_CONTEXT_STRIDE),
    section(layout.CAPTURES, layout.CAPTURES_MAX, layout.CAPTURE_STRIDE),
    section(layout.CAPTURE_STATE, layout.XS_HEAD + layout.CAPTURE_HEAD_BYTES + 64, 1),
    section(layout.CAPTURE_OPTIONS, layout.CAPTURE_OPTION_COUNT, layout.CAPTURE_OPTION_STRIDE),
    section(layout.MIRROR_DELIVERIES, layout.MIRROR_DELIVERY_COUNT, layout.DELIVERY_STRIDE),
    section(layout.DECISIONS, layout.POOL_COUNT * layout.DECISIONS_PER_POOL, layout.DECISION_STRIDE),
  ];
  sections.forEach(([, end], i) => {
    const next = sections[i + 1]?.[0] ?? layout.WINDOWS;
    assert(end <= next, `section ${i} ends at 0x${end.toString(16)}, the next begins at 0x${next.toString(16)}`);
  });
  const control = Object.entries(layout).filter(([name]) => name.startsWith("CTL_")).map(([, offset]) =>
    Number(offset)
  );
  const faults = section(layout.CTL_FAULTS, layout.FAULTS_BYTES, 1);
  assert(faults[1] <= 4096);
  assert(control.every((offset) => offset === faults[0] || offset + 8 <= faults[0] || offset >= faults[1]));
  assertEquals(COUNTERS.length, COUNTER_COUNT);
  assertEquals(layout.HEAD_COPY_STRIDE, 4 * layout.RECORD_STRIDE);
  assertEquals(layout.HEAD_COPY_BYTES_MAX, layout.O_HEADER);
  // A length and what it stands for are each kept in a byte (deliver/head.ts).
  assert(layout.HEAD_COPY_BYTES_MAX + 4 < 256);
  assertEquals(layout.ADDRESS_TABLE_STRIDE, ALLOWED_IPS_MAX * layout.ADDRESS_STRIDE);
  assert(layout.P_COUNTERS + COUNTER_COUNT * 8 <= layout.POOL_STRIDE);
  const offsets = Object.entries(layout).filter(([name]) => name.startsWith("C_")).sort((a, b) =>
    Number(a[1]) - Number(b[1])
  );
  assertEquals(
    offsets.map(([name, offset]) => [name.slice(2).toLowerCase(), offset]),
    COUNTERS.map(([name], i) => [name, i * 8]),
  );
});
