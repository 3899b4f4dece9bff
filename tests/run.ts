/**
 * `deno task test`: everything. Installs the judges (as root, from Debian's packages), gives DPDK its hugepages,
 * builds, checks, runs all tests, gives the hugepages back, and ends with a line `N passed, N failed`.
 */
import { lendHugePages } from "./support/huge_pages.ts";
import { JUDGE_PACKAGES } from "./support/judges.ts";

const HUGE_PAGES = 768;
/** No test goes on for as long without a word. */
const SILENCE_MAX_MS = 300_000;
const isRoot = Deno.uid() === 0;

async function call(command: string, args: string[], quiet = false): Promise<number> {
  const { code } = await new Deno.Command(command, {
    args,
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: quiet ? "null" : "inherit",
    stderr: quiet ? "null" : "inherit",
  }).output();
  return code;
}

async function missingPackages(): Promise<string[]> {
  const missing: string[] = [];
  for (const name of JUDGE_PACKAGES) {
    const query = new Deno.Command("dpkg-query", {
      args: ["-W", "-f=${Status}", name],
      stdout: "piped",
      stderr: "null",
    });
    const { stdout } = await query.output().catch(() => ({ stdout: new Uint8Array() }));
    if (!new TextDecoder().decode(stdout).includes("ok installed")) missing.push(name);
  }
  return missing;
}

async function installJudges(): Promise<void> {
  const missing = await missingPackages();
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(" ")}`;
  if (!isRoot) {
    console.log(`Some judges are missing and their tests will be skipped. To have them, run as root:\n  ${command}`);
    return;
  }
  console.log(`Installing the judges: ${missing.join(" ")}`);
  await call("apt-get", ["update", "-q"], true);
  if (await call("apt-get", ["install", "-y", "-q", "--no-install-recommends", ...missing], true) !== 0) {
    console.log(`Cannot install them; try: ${command}`);
  }
}

/** The tests that run now: they end with this process, whoever ends it. */
let running: Deno.ChildProcess | undefined;

/** Runs `deno test` on some folders; answers passed and failed. */
async function runTests(targets: string[]): Promise<[number, number]> {
  const process = new Deno.Command(Deno.execPath(), {
    args: ["test", "-A", "--no-check", ...targets],
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  running = process;
  let text = "";
  const hangs = () => {
    console.log(
      `\nno word for ${SILENCE_MAX_MS / 1000} s: the test named above hangs; the rest of this folder is not run`,
    );
    process.kill("SIGKILL");
  };
  let watchdog = setTimeout(hangs, SILENCE_MAX_MS);
  for await (const chunk of process.stdout.pipeThrough(new TextDecoderStream())) {
    clearTimeout(watchdog);
    watchdog = setTimeout(hangs, SILENCE_MAX_MS);
    text += chunk;
    await Deno.stdout.write(new TextEncoder().encode(chunk));
  }
  clearTimeout(watchdog);
  const { code } = await process.status;
  running = undefined;
  const [, passed = "0", failed = "0"] = /(\d+) passed[^|]*\| (\d+) failed/.exec(text) ?? [];
  // A run that broke without a failed test, such as a leak in a module, is a failure too.
  return [Number(passed), Math.max(Number(failed), code === 0 ? 0 : 1)];
}

await installJudges();
const giveBack = await lendHugePages(HUGE_PAGES);
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.addSignalListener(signal, async () => {
    running?.kill("SIGKILL");
    await running?.status;
    await giveBack();
    Deno.exit(1);
  });
}
let [passed, failed] = [0, 0];
try {
  for (
    const args of [["task", "build"], ["fmt", "--check"], ["lint"], ["check", "--quiet", "services", "shared", "tests"]]
  ) {
    const code = await call(Deno.execPath(), args);
    console.log(`deno ${args.join(" ")}: ${code === 0 ? "ok" : "FAILED"}`);
    if (code === 0) passed++;
    else failed++;
  }
  // Unit tests share nothing; all others want the machine for themselves.
  for (const targets of [["--parallel", "tests/unit"], ["tests/property"], ["tests/fuzz"], ["tests/integration"]]) {
    const [ok, bad] = await runTests([...targets, ...Deno.args]);
    passed += ok;
    failed += bad;
  }
} finally {
  await giveBack();
}
console.log(`${passed} passed, ${failed} failed`);
Deno.exit(failed === 0 ? 0 : 1);
