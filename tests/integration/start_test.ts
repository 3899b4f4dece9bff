/** What cannot start: one clear line that says what to do, and exit code 1. */
import { assertEquals, assertMatch } from "@std/assert";
import { freePorts, TestFabric } from "../support/fabric.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";

const ROOT = new URL("../../", import.meta.url);

/** Runs `up` to its end; answers its exit code and what it said. */
async function upFails(
  args: string[],
  options: Deno.CommandOptions = {},
  run = ["-A"],
): Promise<{ code: number; said: string[] }> {
  await using process = new TestProcess("up", Deno.execPath(), [
    "run",
    "--quiet",
    ...run,
    "services/up/main.ts",
    ...args,
  ], {
    cwd: ROOT,
    ...options,
  });
  await until("up to end", () => process.exited, 20_000);
  return { code: process.exited?.code ?? -1, said: process.errors.split("\n").filter((line) => line !== "") };
}

Deno.test("what cannot work is one clear line and exit code 1", async (t) => {
  await using fabric = await TestFabric.start(1);
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const port = () => String(freePorts());
  const cases: [string, string[], RegExp, Deno.CommandOptions?][] = [
    ["port in use", ["--port", String(fabric.port), "--run-dir", dir], /port is in use/],
    ["a service's port in use", ["--port", String(fabric.port - 1), "--run-dir", dir], /port is in use/],
    [
      "run directory that is a file",
      ["--port", port(), "--run-dir", "/etc/hostname"],
      /Cannot use run directory \/etc\/hostname/,
    ],
    [
      "run directory not writable",
      ["--port", port(), "--run-dir", "/proc/ringfabric"],
      /Cannot use run directory \/proc\/ringfabric/,
    ],
    [
      "a second up on the same run directory",
      ["--port", port(), "--run-dir", fabric.runDir],
      /another fabric runs there/,
    ],
    ["too long a run directory", ["--port", port(), "--run-dir", `${dir}/${"x".repeat(120)}`], /socket path/],
    [
      "an address without a token",
      ["--run-dir", dir, "--host", "0.0.0.0", "--no-token"],
      /--no-token is for this machine/,
    ],
    ["a port that is none", ["--port", "99999", "--run-dir", dir], /from 1 to 65535/],
    ["-1 VFs", ["--vfs", "-1", "--run-dir", dir], /0 to 256/],
    ["an unknown option", ["--colour"], /^up: unknown option/],
    ["no address", ["--host", "", "--run-dir", dir], /It is an address such as 127\.0\.0\.1/],
    ["an address with a port", ["--host", "127.0.0.1:80", "--run-dir", dir], /--port says the port/],
    [
      "an address of another machine",
      ["--host", "192.0.2.1", "--port", port(), "--run-dir", dir],
      /Cannot listen on 192\.0\.2\.1:\d+: .*; say an address of this machine \(--host, --listen\)/,
    ],
    [
      "keys that are not there",
      ["--trust", "/nowhere/keys", "--port", port(), "--run-dir", dir],
      /^up: vf: Cannot trust the keys in \/nowhere\/keys: there is no such file/,
    ],
    [
      "keys that are none",
      ["--trust", "/etc/passwd", "--port", port(), "--run-dir", dir],
      /^up: vf: Cannot trust a key in \/etc\/passwd/,
    ],
    [
      "CPUs that are not there",
      ["--engine-cpus", "999", "--port", port(), "--run-dir", dir],
      /^up: nic: the engine's worker failed: Cannot run on CPUs 999: none of them is there/,
    ],
    [
      "an argument that a guest does not know",
      ["--guests", "1", "--guest-args=--colour", "--port", port(), "--run-dir", dir],
      /^up: guest 0: unknown option '--colour'/,
    ],
  ];
  for (const [name, args, pattern, options] of cases) {
    await t.step(name, async () => {
      const { code, said } = await upFails(args, options);
      assertEquals(code, 1, said.join("\n"));
      assertEquals(said.length, 1, said.join("\n"));
      assertMatch(said[0] ?? "", pattern);
    });
  }
  await t.step("missing FFI permission", async () => {
    const { code, said } = await upFails(["--port", port(), "--run-dir", dir], {}, ["-A", "--deny-ffi"]);
    assertEquals([code, said.length], [1, 1], said.join("\n"));
    assertMatch(said[0] ?? "", /FFI is not permitted/);
    for (
      const service of [["nic", "--socket", `${dir}/n.sock`], [
        "vhost",
        "--nic-socket",
        `${dir}/n.sock`,
        "--run-dir",
        dir,
      ]]
    ) {
      const [name = "", ...args] = service;
      const output = await new Deno.Command(Deno.execPath(), {
        args: [
          "run",
          "--quiet",
          "--no-prompt",
          "-A",
          "--deny-ffi",
          `services/${name}/main.ts`,
          "--listen",
          `127.0.0.1:${port()}`,
          ...args,
        ],
        cwd: ROOT,
      }).output();
      const said = new TextDecoder().decode(output.stderr).trim();
      assertEquals([output.code, said.split("\n").length], [1, 1], said);
      assertMatch(said, /FFI is not permitted; start this service with --allow-ffi/);
    }
  });
  assertEquals(await fabric.get("/api/v1/vfs").then((vfs) => vfs.length), 1, "the running fabric was not touched");
  await Deno.remove(dir, { recursive: true });
});
