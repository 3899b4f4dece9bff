/**
 * `deno task unit`: the unit tests, ten files or so to an isolate. `deno test` gives each file an isolate of its own, where
 * a small file takes most of its time to load modules. The whole run (tests/run.ts) does give each file its own. Options of
 * `deno test` may follow.
 */

/** With fewer, less is loaded, but collecting what an isolate's tests leave behind takes longer. */
const ISOLATES = 12;
const UNIT = new URL("unit/", import.meta.url);

const files = Array.from(Deno.readDirSync(UNIT), ({ name }) => name).filter((name) => name.endsWith("_test.ts")).sort();
const dir = await Deno.makeTempDir({ prefix: "ringfabric-unit-" });
try {
  // One file after the other: some load modules that another has too, and want them whole, before they name their tests.
  for (let isolate = 0; isolate < ISOLATES; isolate++) {
    const imports = files.filter((_, i) => i % ISOLATES === isolate).map((name) =>
      `await import("${new URL(name, UNIT)}");\n`
    );
    await Deno.writeTextFile(`${dir}/${isolate}_test.ts`, imports.join(""));
  }
  const { code } = await new Deno.Command(Deno.execPath(), {
    // In an isolate's few seconds V8's better code for Wasm does not pay for itself, nor does collecting garbage early. The
    // whole run tests with V8 as it is.
    args: [
      "test",
      "-A",
      "--v8-flags=--liftoff-only,--initial-heap-size=600",
      "--quiet",
      "--no-check",
      "--parallel",
      "--reporter=dot",
      ...Deno.args,
      dir,
    ],
    // One more than there are CPUs: some tests wait.
    env: { DENO_JOBS: String(navigator.hardwareConcurrency + 1) },
    cwd: new URL("..", import.meta.url),
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).output();
  Deno.exitCode = code;
} finally {
  await Deno.remove(dir, { recursive: true });
}
