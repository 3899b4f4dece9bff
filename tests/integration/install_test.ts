/** The installed command line: from any directory, with its user's own paths, for people with and without Deno. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { compilePlugin } from "../support/plugins.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** What came of a program. */
interface Answer {
  code: number;
  out: string;
  err: string;
}

async function run(command: string, args: string[], options: Deno.CommandOptions = {}): Promise<Answer> {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args,
    ...options,
    env: { NO_COLOR: "1", ...options.env },
  }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

/** Runs `deno task install`, from the directory that its user is in. */
function install(args: string[], cwd: string, env: Record<string, string> = {}): Promise<Answer> {
  // npx and `deno task` tell a task where their user is, if nobody has told them.
  const { INIT_CWD: _cwd, ...inherited } = Deno.env.toObject();
  return run(Deno.execPath(), ["task", "-q", "--config", `${ROOT}deno.json`, "install", ...args], {
    cwd,
    clearEnv: true,
    env: { ...inherited, ...env },
  });
}

/** A directory for a test, removed when the test ends. */
function temporary(): { path: string } & Disposable {
  const path = Deno.makeTempDirSync({ prefix: "ringfabric install's " });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** What an installed `fabric` is to do in any directory: `cwd` is one. */
async function assertWorks(fabric: string, cwd: string, env: Record<string, string> = {}): Promise<void> {
  const { version } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  assertEquals(await run(fabric, ["--version"], { cwd, env }), { code: 0, out: `${version}\n`, err: "" });
  await using running = await TestFabric.start(2);
  const cli = (...args: string[]) => run(fabric, args, { cwd, env: { ...env, RINGFABRIC_RUN_DIR: running.runDir } });
  assertMatch((await cli("vf", "list")).out, /^ 1 {2}02:/m);
  await Deno.writeTextFile(`${cwd}/policy.yaml`, "vfs: [{ id: 1, vlan: 7 }]");
  assertEquals(await cli("diff", "-f", "policy.yaml"), { code: 1, out: "vf 1: vlan: 0 -> 7\n", err: "" });
  assertEquals((await cli("apply", "-f", "policy.yaml")).code, 0);
  assertEquals((await cli("--json", "token", "add", "bob", "read")).code, 0);
  assertEquals((await cli("plugin", "new", "mynic")).code, 0);
  assertEquals((await Deno.stat(`${cwd}/mynic/plugin.ts`)).isFile, true);
  assertEquals((await cli("plugin", "keygen", "vendor.key")).code, 0);
  assertEquals((await Deno.stat(`${cwd}/vendor.key`)).isFile, true);
  await Deno.writeFile(`${cwd}/mine.wasm`, await compilePlugin());
  const about = ["--name", "mine", "--version", "1.0.0", "--hardware", "virtio", "--licence", "MIT"];
  assertEquals(await cli("plugin", "sign", "mine.wasm", "my.image", "--key", "vendor.key", ...about), {
    code: 0,
    out: "signed my.image\n",
    err: "",
  });
  assertEquals((await Deno.stat(`${cwd}/my.image`)).isFile, true);
}

Deno.test("task install: `fabric` works from every directory, and paths are its user's own", async () => {
  using home = temporary();
  using cwd = temporary();
  const cache = Deno.env.get("DENO_DIR") ??
    `${Deno.env.get("XDG_CACHE_HOME") ?? `${Deno.env.get("HOME")}/.cache`}/deno`;
  const installed = await install([], cwd.path, { HOME: home.path, DENO_DIR: cache });
  const fabric = `${home.path}/.local/bin/fabric`;
  assertEquals([installed.code, installed.err], [0, ""]);
  assertStringIncludes(installed.out, `installed ${fabric}\nIt is not on PATH: export PATH='`);
  await assertWorks(fabric, cwd.path);
});

Deno.test("task install replaces its own launcher and nobody else's file", async () => {
  using cwd = temporary();
  const fabric = `${cwd.path}/bin/fabric`;
  assertEquals(await install(["--dir", "bin"], cwd.path, { PATH: `${cwd.path}/bin:${Deno.env.get("PATH")}` }), {
    code: 0,
    out: `installed ${fabric}\n`,
    err: "",
  });
  assertEquals((await install(["--dir", "bin"], cwd.path)).code, 0);
  assertEquals((await install(["--dir", "bin", "--remove"], cwd.path)).out, `removed ${fabric}\n`);
  assertEquals((await install(["--dir", "bin", "--remove"], cwd.path)).err, `install: there is no ${fabric}\n`);
  await Deno.writeTextFile(`${cwd.path}/other`, "#!/bin/sh\n");
  for (const make of [() => Deno.copyFile(`${cwd.path}/other`, fabric), () => Deno.symlink("../other", fabric)]) {
    await make();
    for (const args of [[], ["--remove"]]) {
      const { code, err } = await install(["--dir", "bin", ...args], cwd.path);
      assertEquals([code, err.includes(`${fabric} is there and is not ringfabric's`)], [1, true], err);
    }
    assertEquals(await Deno.readTextFile(`${cwd.path}/other`), "#!/bin/sh\n");
    await Deno.remove(fabric);
  }
  assertEquals([...Deno.readDirSync(`${cwd.path}/bin`)], [], "nothing half-made is left");
});

Deno.test("an installed `fabric` whose Deno or whose checkout is gone", async () => {
  using cwd = temporary();
  const fabric = `${cwd.path}/fabric`;
  await install(["--dir", "."], cwd.path);
  const text = await Deno.readTextFile(fabric);
  await Deno.writeTextFile(fabric, text.replace(/^deno=.*$/m, "deno='/nowhere/deno'"));
  // npx, as far as the launcher calls it: "-y deno@VERSION" and Deno's own arguments.
  const npx = `#!/bin/sh\necho "$1 $2" >&2\nshift 2\nexec '${Deno.execPath()}' "$@"\n`;
  await Deno.writeTextFile(`${cwd.path}/npx`, npx, { mode: 0o755 });
  const { code, out, err } = await run(fabric, ["--version"], {
    cwd: "/",
    env: { PATH: `${cwd.path}:${Deno.env.get("PATH")}` },
  });
  assertEquals([code, err], [0, `-y deno@${Deno.version.deno}\n`], out);
  await Deno.writeTextFile(fabric, text.replace(/^root=.*$/m, "root='/nowhere'"));
  const gone = await run(fabric, ["--version"]);
  assertEquals([gone.code, gone.err.includes("fabric: /nowhere is gone: run `npx")], [1, true], gone.err);
});

Deno.test("`deno install -g` as docs/operations.md has it", async () => {
  using root = temporary();
  using cwd = temporary();
  const doc = await Deno.readTextFile(`${ROOT}docs/operations.md`);
  const line = /^deno install -g (?:.*\\\n)*.*$/m.exec(doc)?.[0].replaceAll("\\\n", " ") ?? "";
  const words = line.split(/\s+/).slice(1);
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  const rights = (from: string[]) => from.filter((word) => /^--(allow|ignore|no-prompt)/.test(word));
  assertEquals(rights(words), rights(tasks.fabric.split(" ")), "it may what the task may");
  // Deno itself is on the PATH of those who do this.
  await Deno.symlink(Deno.execPath(), `${root.path}/deno`);
  const { code, err } = await run(Deno.execPath(), [...words, "--root", root.path], { cwd: ROOT });
  assertEquals(code, 0, err);
  await assertWorks(`${root.path}/bin/fabric`, cwd.path, { PATH: `${root.path}:${Deno.env.get("PATH")}` });
});
