/** The rules of the house that a machine can keep: who imports whom, sizes of files, no data in the Wasm. */
import { assert, assertEquals } from "@std/assert";
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
    // What is told to a standby goes by a channel of packets, and is about an engine.
    if (second === "standby" && /^shared\/(api|device|engine)\//.test(to)) return true;
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
