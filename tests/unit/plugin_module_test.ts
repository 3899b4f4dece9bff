/**
 * What a plugin's module may be, and that it can be ended: every kind of thing that a later version of the language
 * brings is refused by name, a module has one form, and its guard ends it wherever it is.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { PLUGIN_MEMORY_BYTES } from "../../shared/layout/plugin.ts";
import { Writer } from "../../shared/plugin/binary.ts";
import {
  checkImage,
  generateKeys,
  GUARD_IMPORT,
  PluginRejected,
  type RejectionCode,
  rewriteModule,
  sectionsOf,
  signatureOf,
  validateModule,
} from "../../shared/plugin/mod.ts";
import { compilePlugin, sign } from "../support/plugins.ts";
import { within } from "../support/wait.ts";
import { moduleOf, pluginOf } from "../support/wat.ts";

function codeOf(module: Uint8Array<ArrayBuffer>): RejectionCode | "taken" {
  try {
    rewriteModule(module, true);
    return "taken";
  } catch (error) {
    if (error instanceof PluginRejected) return error.code;
    throw error;
  }
}

const rx = (body: string, locals = "") => ({
  rx: `(func (export "rx") (param i32 i32) (result i32) ${locals} ${body} (i32.const 0))`,
});

/** What each module is, and what it is called that it is. */
const MODULES: Record<string, [Uint8Array<ArrayBuffer>, RejectionCode | "taken"]> = {
  "nothing unusual": [pluginOf(), "taken"],
  "SIMD, bulk memory, atomics, sign extension, saturating conversions": [
    pluginOf(rx(`
      (v128.store (i32.const 0) (i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15
        (v128.const i32x4 1 2 3 4) (i32x4.splat (i32.const 7))))
      (drop (v128.load8_lane 3 (i32.const 0) (v128.const i64x2 0 0)))
      (memory.copy (i32.const 0) (i32.const 64) (i32.const 64)) (memory.fill (i32.const 0) (i32.const 1) (i32.const 2))
      (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1))) (atomic.fence)
      (drop (i32.extend8_s (i32.const -1))) (drop (i32.trunc_sat_f64_s (f64.const 1e300)))`)),
    "taken",
  ],
  "a struct of its own (GC)": [
    pluginOf(rx("(drop (struct.new $s (i32.const 1)))"), "(type $s (struct (field i32)))"),
    "type-not-allowed",
  ],
  "an array of its own (GC)": [
    pluginOf(rx("(drop (array.new $a (i64.const 1) (i32.const 1000000)))"), "(type $a (array i64))"),
    "type-not-allowed",
  ],
  "a reference in a local variable": [pluginOf(rx("", "(local externref)")), "type-not-allowed"],
  "a reference in a global variable": [
    pluginOf({}, "(global (mut externref) (ref.null extern))"),
    "type-not-allowed",
  ],
  "a function that takes a reference": [
    pluginOf({ disarm: '(func (export "disarm") (param externref))' }),
    "type-not-allowed",
  ],
  "a function with two results": [
    pluginOf({ rx: '(func (export "rx") (param i32 i32) (result i32 i32) (i32.const 1) (i32.const 0))' }),
    "type-not-allowed",
  ],
  "a table": [pluginOf(rx("(call_indirect (i32.const 0))"), "(table 1 1 funcref)"), "section-not-allowed"],
  "an exception": [pluginOf(rx("(throw $e)"), "(tag $e)"), "section-not-allowed"],
  "exceptions that are caught": [pluginOf(rx("(block $b (try_table (catch_all $b)))")), "instruction-not-allowed"],
  "a tail call": [
    pluginOf({}, "(func $f (result i32) (return_call $f))"),
    "instruction-not-allowed",
  ],
  "relaxed SIMD": [
    pluginOf(rx("(drop (i8x16.relaxed_swizzle (v128.const i64x2 0 0) (v128.const i64x2 0 0)))")),
    "instruction-not-allowed",
  ],
  "a wait for another thread": [
    pluginOf(rx("(drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1)))")),
    "instruction-not-allowed",
  ],
  "a call to other threads": [
    pluginOf(rx("(drop (memory.atomic.notify (i32.const 0) (i32.const 1)))")),
    "instruction-not-allowed",
  ],
  "a second memory": [pluginOf({}, "(memory 1 1 shared)"), "own-memory"],
  "data": [pluginOf({}, '(data (i32.const 0) "x")'), "section-not-allowed"],
  "the guard's memory, imported": [
    pluginOf({}, '(import "shell" "guard" (memory 1 1 shared))'),
    "import-not-allowed",
  ],
  "a memory that is not shared": [
    moduleOf('(module (import "env" "memory" (memory 160 160)))'),
    "import-not-allowed",
  ],
  "a memory that is too large": [
    moduleOf('(module (import "env" "memory" (memory 161 200 shared)))'),
    "import-not-allowed",
  ],
  "no memory": [moduleOf('(module (func (export "abi") (result i32) (i32.const 1)))'), "import-missing"],
  "a notify that takes references": [
    pluginOf({}, '(import "shell" "notify" (func (param externref) (result externref)))'),
    "type-not-allowed",
  ],
  "a notify that answers": [
    pluginOf({}, '(import "shell" "notify" (func (param i32) (result i32)))'),
    "wrong-signature",
  ],
  "a global variable from outside": [pluginOf({}, '(import "env" "base" (global i32))'), "import-not-allowed"],
  "an rx that answers nothing": [pluginOf({ rx: '(func (export "rx") (param i32 i32))' }), "wrong-signature"],
  "an rx that answers a fraction": [
    pluginOf({ rx: '(func (export "rx") (param i32 i32) (result f64) (f64.const nan))' }),
    "wrong-signature",
  ],
  "an rx that answers 64 bits": [
    pluginOf({ rx: '(func (export "rx") (param i32 i32) (result i64) (i64.const 1))' }),
    "wrong-signature",
  ],
  "an rx that is no function": [
    pluginOf({ rx: '(global (export "rx") i32 (i32.const 0))' }),
    "wrong-signature",
  ],
  "an export that no shell calls": [pluginOf({}, '(func (export "more"))'), "taken"],
  "an export by a name that looks like rx": [
    pluginOf({ rx: '(func (export "\\ef\\bb\\bfrx") (param i32 i32) (result f64) (f64.const nan))' }),
    "export-missing",
  ],
  "the guard's memory, exported": [pluginOf({}, '(export "g" (memory 0))'), "export-not-allowed"],
  "no rx": [pluginOf({ rx: "" }), "export-missing"],
  "129 local variables": [pluginOf(rx("", `(local ${"i32 ".repeat(129)})`)), "too-complex"],
  "257 nested blocks": [pluginOf(rx("(if (i32.const 1) (then ".repeat(257) + "))".repeat(257))), "too-complex"],
  "a branch table of 1,025": [pluginOf(rx(`(block $b (br_table ${"$b ".repeat(1026)} (i32.const 0)))`)), "too-complex"],
  "a function of 9 KB": [pluginOf(rx("(drop (i64.const 0x7fffffffffffffff))".repeat(800))), "too-complex"],
};

for (const [name, [module, code]] of Object.entries(MODULES)) {
  Deno.test(`a plugin with ${name}: ${code}`, () => assertEquals(codeOf(module), code));
}

Deno.test("a module that is cut off or altered anywhere is refused by name, or is one that a plugin may be", async () => {
  const module = await compilePlugin();
  const altered = Array.from(
    { length: module.length - 8 },
    (_, i) => [0x01, 0x40, 0x80, 0xff].map((flip) => module.map((byte, at) => at === i + 8 ? byte ^ flip : byte)),
  ).flat();
  const cut = Array.from({ length: module.length }, (_, length) => module.slice(0, length));
  let taken = 0;
  for (const image of [...altered, ...cut]) {
    try {
      // What is taken has been compiled: it is what V8 takes, and what the guard was put into.
      await validateModule(image);
      taken++;
    } catch (error) {
      if (!(error instanceof PluginRejected)) throw error;
    }
  }
  assert(taken < altered.length / 2, `${taken} of ${altered.length} altered modules are taken`);
});

// One module, one form ---------------------------------------------------------------------------------------

const CODE = 10;

/** A section in its shortest form, or with its size in five bytes. */
function section(id: number, content: number[], padded = false): number[] {
  const writer = new Writer();
  writer.byte(id);
  if (padded) writer.raw([content.length & 0x7f | 0x80, content.length >> 7 | 0x80, 0x80, 0x80, 0]);
  else writer.u32(content.length);
  return [...writer.bytes, ...content];
}

/** A plugin that does nothing, whose `rx` has this body and whose code section has these sizes. */
function withBody(rxBody: number[], { sectionPadded = false, bodyPadded = false } = {}): Uint8Array<ArrayBuffer> {
  const image = pluginOf();
  const answers = [0, 0x41, 0, 0x0b];
  const [nothing, one] = [[0, 0x0b], answers];
  const bodies = [one, one, nothing, one, one, one, rxBody, one, nothing];
  const sized = bodies.flatMap((body, i) =>
    bodyPadded && i === 0 ? [body.length | 0x80, 0, ...body] : [body.length, ...body]
  );
  const others = sectionsOf(image).map(({ id, body }) =>
    id === CODE ? section(CODE, [bodies.length, ...sized], sectionPadded) : section(id, [...body])
  );
  return Uint8Array.from([...image.slice(0, 8), ...others.flat()]);
}

const SHORT = [0, 0x41, 0, 0x0b];
/** Bodies of `rx` as they are written, and as they are to be. */
const FORMS: Record<string, [number[], number[]]> = {
  "a constant": [[0, 0x41, 0x80, 0x80, 0, 0x0b], SHORT],
  "a negative constant": [[0, 0x41, 0xff, 0x7f, 0x0b], [0, 0x41, 0x7f, 0x0b]],
  "a constant of 64 bits": [[0, 0x42, 0xc0, 0x80, 0, 0xa7, 0x0b], [0, 0x42, 0xc0, 0, 0xa7, 0x0b]],
  "a local variable's number": [[0, 0x20, 0x81, 0, 0x0b], [0, 0x20, 1, 0x0b]],
  "local variables in several groups": [
    [4, 1, 0x7f, 0, 0x7e, 1, 0x7f, 1, 0x7c, 0x41, 0, 0x0b],
    [2, 2, 0x7f, 1, 0x7c, 0x41, 0, 0x0b],
  ],
  "an address's alignment and offset": [
    [0, 0x41, 0, 0x28, 0x82, 0, 0x84, 0x80, 0, 0x0b],
    [0, 0x41, 0, 0x28, 2, 4, 0x0b],
  ],
  "an instruction's number": [
    [0, 0xfd, 0x8c, 0, ...Array<number>(16).fill(0), 0xfd, 0xd3, 0x80, 0, 0x0b],
    [0, 0xfd, 0x0c, ...Array<number>(16).fill(0), 0xfd, 0x53, 0x0b],
  ],
  "the targets of a branch table": [
    [0, 0x02, 0x40, 0x20, 0, 0x0e, 0x81, 0, 0x80, 0, 0x80, 0, 0x0b, 0x41, 0, 0x0b],
    [0, 0x02, 0x40, 0x20, 0, 0x0e, 1, 0, 0, 0x0b, 0x41, 0, 0x0b],
  ],
};

async function hasOneForm(long: Uint8Array<ArrayBuffer>, short: Uint8Array<ArrayBuffer>): Promise<void> {
  assertEquals(rewriteModule(long, false), short);
  const refused = await assertRejects(() => validateModule(long), PluginRejected);
  assertEquals((refused as PluginRejected).code, "not-canonical");
  await validateModule(short);
}

for (const [name, [long, short]] of Object.entries(FORMS)) {
  Deno.test(`one module, one form: ${name}`, () => hasOneForm(withBody(long), withBody(short)));
}

Deno.test("one module, one form: sizes of sections and functions", async () => {
  await hasOneForm(withBody(SHORT, { sectionPadded: true }), withBody(SHORT));
  await hasOneForm(withBody(SHORT, { bodyPadded: true }), withBody(SHORT));
});

Deno.test("an image whose signature's section is written otherwise is refused, though the signature is good", async () => {
  const keys = await generateKeys();
  const trust = { keys: [keys.publicKey] };
  const image = await sign(pluginOf(), keys);
  await checkImage(image, trust);
  const { signed } = signatureOf(image);
  const content = sectionsOf(image).at(-1);
  const name = [...new TextEncoder().encode("ringfabric.signature")];
  const rewritten = (...header: number[]) =>
    Uint8Array.from([...signed, ...section(0, [...header, ...content?.body ?? []], header[0] === name.length + 3)]);
  await assertRejects(() => checkImage(rewritten(name.length | 0x80, 0, ...name), trust), PluginRejected);
  await assertRejects(() => checkImage(rewritten(name.length + 3, 0xef, 0xbb, 0xbf, ...name), trust), PluginRejected);
  const padded = Uint8Array.from([...signed, ...section(0, [name.length, ...name, ...content?.body ?? []], true)]);
  await assertRejects(() => checkImage(padded, trust), PluginRejected);
});

// The guard --------------------------------------------------------------------------------------------------

/** What V8 calls the guard's trap. */
const TRAP = "memory access out of bounds";
/** Ways not to come back. */
const ENDLESS: Record<string, string> = {
  "a loop": "(loop $l (br $l))",
  "a loop that writes": "(loop $l (drop (i32.atomic.rmw.add (i32.const 64) (i32.const 1))) (br $l))",
  "loops in loops": "(loop $a (loop $b (loop $c (br_if $c (local.get 0))) (br $a)))",
  "a branch table": "(loop $l (br_table $l $l $l (local.get 0)))",
  "a loop that answers": "(drop (loop $l (result i32) (br $l)))",
  "calls without end": "(drop (call $deep (i32.const 0)))",
  "a function that fills the whole memory 500 times":
    "(memory.fill (i32.const 0) (i32.const 1) (i32.const 0xa00000))".repeat(500) + "(loop $l (br $l))",
  "the whole memory, filled again and again":
    "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 0xa00000)) (br $l))",
};
const DEEP = `(func $deep (param i32) (result i32)
  (if (i32.gt_u (local.get 0) (i32.const 40)) (then (return (i32.const 0))))
  (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (call $deep (i32.add (local.get 0) (i32.const 1)))))`;

/** A thread with a plugin in it, which calls `rx` when it is told to, and says how that ended. */
function threadWith(module: WebAssembly.Module, guard: WebAssembly.Memory): Worker {
  const pages = PLUGIN_MEMORY_BYTES / 65536;
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const source = `self.onmessage = ({ data: { module, memory, guard } }) => {
    const { exports } = new WebAssembly.Instance(module, { env: { memory }, shell: { notify() {}, guard } });
    self.postMessage("calls");
    try { exports.rx(0, 0); self.postMessage("came back"); } catch (error) { self.postMessage(error.message); }
    try { exports.tx(0, 0); self.postMessage("runs again"); } catch (error) { self.postMessage(error.message); }
  }`;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  worker.postMessage({ module, memory, guard });
  return worker;
}

for (const [name, body] of Object.entries(ENDLESS)) {
  Deno.test(`the guard ends ${name}, and every later call`, async () => {
    const guard = new WebAssembly.Memory({ initial: GUARD_IMPORT.pages, maximum: GUARD_IMPORT.pages, shared: true });
    const worker = threadWith(await validateModule(pluginOf(rx(body), DEEP)), guard);
    const said: string[] = [];
    const done = Promise.withResolvers<void>();
    worker.onmessage = ({ data }) => {
      said.push(data);
      if (data === "calls") setTimeout(() => Atomics.store(new Int32Array(guard.buffer), 0, 1), 100);
      if (said.length === 3) done.resolve();
    };
    await within("the plugin to end", done.promise);
    worker.terminate();
    assertEquals(said, ["calls", TRAP, TRAP]);
  });
}

Deno.test("with the guard a plugin does what it does without", async () => {
  // Every construct that the guard is put into: functions, loops, loops with a value, in and around branches.
  const module = pluginOf({
    rx: `(func $rx (export "rx") (param $n i32) (param $x i32) (result i32) (local $sum i64) (local $i i32)
      (if (i32.gt_s (local.get $n) (i32.const 9)) (then (return (call $rx (i32.const 9) (local.get $x)))))
      (block $out
        (loop $next
          (br_if $out (i32.ge_s (local.get $i) (local.get $n)))
          (local.set $sum (i64.add (i64.mul (local.get $sum) (i64.const 31))
            (i64.extend_i32_s (loop $l (result i32) (i32.xor (local.get $i) (local.get $x))))))
          (i64.store (i32.add (i32.const 0x20000) (i32.shl (local.get $i) (i32.const 3))) (local.get $sum))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_table $next $next $out $next (i32.rem_u (local.get $i) (i32.const 4)))))
      (i32.wrap_i64 (i64.add (local.get $sum) (i64.load (i32.const 0x20000)))))`,
  });
  const run = async (bytes: Uint8Array<ArrayBuffer>) => {
    const memory = new WebAssembly.Memory({ initial: 160, maximum: 160, shared: true });
    const guard = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    const instance = new WebAssembly.Instance(await WebAssembly.compile(bytes), { env: { memory }, shell: { guard } });
    const call = instance.exports.rx as (n: number, x: number) => number;
    const answers = Array.from({ length: 200 }, (_, i) => call(i % 20, i * 7919));
    return [answers, [...new Uint32Array(memory.buffer, 0x20000, 64)]];
  };
  assertEquals(await run(rewriteModule(module, true)), await run(module));
});
