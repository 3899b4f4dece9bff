/** `fabric plugin new`: what it makes, and where it makes nothing. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { mustBeFree, newPlugin } from "../../services/cli/new_plugin.ts";
import { UsageError } from "../../services/cli/values.ts";
import { LICENCES } from "../../shared/plugin/mod.ts";
import { compilerFlags, PLUGIN_PAGES } from "../../shared/wasm/flags.ts";

const COMPILER = config.imports["assemblyscript/asc"];

/** Runs a test in a directory of its own. */
async function inDirectory(fn: (dir: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    await fn(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Paths of all files below a directory. */
function filesIn(dir: string): string[] {
  return [...Deno.readDirSync(dir)].flatMap(({ name, isDirectory }) =>
    isDirectory ? filesIn(`${dir}/${name}`).map((path) => `${name}/${path}`) : [name]
  ).sort();
}

Deno.test("a new plugin has all that its own files name, and says its name", () =>
  inDirectory(async (dir) => {
    const target = `${dir}/deep/my-nic`;
    assertEquals(await newPlugin(target, undefined, COMPILER), { name: "my-nic", dir: target });
    assertEquals(filesIn(target), [
      ...[".gitignore", "LICENSE", "README.md", "deno.json"],
      ...["layout/advanced.ts", "layout/plugin.ts", "layout/virtio.ts"],
      ...["offload.ts", "plugin.ts", "plugin_test.ts", "rings.ts", "transmit.ts"],
    ]);
    const ofCompiler = ["offload.ts", "plugin.ts", "rings.ts", "transmit.ts"];
    for (const file of [...ofCompiler, "plugin_test.ts", "layout/advanced.ts", "layout/plugin.ts"]) {
      const text = await Deno.readTextFile(`${target}/${file}`);
      for (const [, path = ""] of text.matchAll(/from "(\.[^"]*)"/g)) {
        assertMatch(path, ofCompiler.includes(file) ? /^\.\/(layout\/)?\w+$/ : /^\.\/layout\/\w+\.ts$/);
        assert(filesIn(target).includes(`${path.slice(2).replace(/\.ts$/, "")}.ts`), `${file} imports ${path}`);
      }
    }
    const readme = await Deno.readTextFile(`${target}/README.md`);
    assertMatch(readme, /^# my-nic\n[^]*--name my-nic[^]*--plugin my-nic\n/);
    assert(!readme.includes("mynic"), "the template's own name is left");
    const { tasks } = JSON.parse(await Deno.readTextFile(`${target}/deno.json`));
    assertMatch(tasks.build, /npm:assemblyscript@\d+\.\d+\.\d+\/asc plugin\.ts /);
    assertMatch(tasks.build, /--importMemory --sharedMemory --initialMemory 160 --maximumMemory 160 /);
  }));

Deno.test("nothing is made where something is, and an empty directory is as good as none", () =>
  inDirectory(async (dir) => {
    await Deno.writeTextFile(`${dir}/mine`, "kept");
    for (const target of [dir, `${dir}/mine`, `${dir}/mine/below`]) {
      await assertRejects(() => newPlugin(target, "mynic", COMPILER), UsageError, "something is there already");
    }
    assertEquals([filesIn(dir), await Deno.readTextFile(`${dir}/mine`)], [["mine"], "kept"]);
    await Deno.mkdir(`${dir}/empty`);
    assertEquals((await newPlugin(`${dir}/empty`, "mynic", COMPILER)).name, "mynic");
  }));

Deno.test("a name that could not be published is refused, and nothing is made", () =>
  inDirectory(async (dir) => {
    for (const name of ["", "MyNic", "1nic", "my_nic", "a/b", "x".repeat(33)]) {
      assertThrows(() => mustBeFree(name), UsageError, "lower-case letters");
    }
    for (const name of ["advanced", "virtio"]) {
      assertThrows(() => mustBeFree(name), UsageError, "comes with the fabric");
    }
    mustBeFree("a-2");
    await assertRejects(() => newPlugin(`${dir}/My.Nic`, undefined, COMPILER), UsageError, "--name says another");
    await assertRejects(() => newPlugin(`${dir}/mynic`, "virtio", COMPILER), UsageError, "choose another");
    assertEquals(filesIn(dir), []);
    assertEquals((await newPlugin(`${dir}/My.Nic`, "mynic", COMPILER)).name, "mynic");
  }));

Deno.test("the page for plugin authors has the compiler, its flags, and the licences that are in force", () => {
  const page = Deno.readTextFileSync(new URL("../../docs/plugin-api.md", import.meta.url));
  const [, version, command = ""] =
    /^npx -y -p assemblyscript@(\S+) asc plugin\.ts -o plugin\.wasm ([^`]*)```/m.exec(page) ??
      [];
  assertEquals(`npm:assemblyscript@${version}/asc`, COMPILER);
  const flags = [...compilerFlags(PLUGIN_PAGES, PLUGIN_PAGES), "--use", "abort="];
  assertEquals(command.replaceAll("\\\n", "").trim().split(/ +/).sort(), flags.sort());
  const licences = /^\*\*Licences\*\* that are taken: ([^.]*(?:\.\d[^.]*)*)\.$/m.exec(page)?.[1] ?? "";
  assertEquals([...licences.matchAll(/`([^`]+)`/g)].map(([, licence]) => licence), LICENCES);
});
