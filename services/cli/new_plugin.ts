/**
 * `fabric plugin new`: a plugin to begin with. It is the project's own for advanced rings, copied as it is together with
 * the layouts that it reads, so that there is one source of it; what only a plugin of somebody else needs (a test, the
 * README) is in plugin_template/.
 */
import { basename, dirname, resolve } from "@std/path";
import { Hardware, PluginInfo } from "../../shared/plugin/mod.ts";
import { compilerFlags, PLUGIN_PAGES } from "../../shared/wasm/flags.ts";
import { ROOT } from "../../shared/wasm/load.ts";
import { UsageError } from "./values.ts";

/** Files of the new plugin, and where each is copied from. */
const FILES = {
  "plugin.ts": "assembly/plugin/advanced/index.ts",
  "transmit.ts": "assembly/plugin/advanced/transmit.ts",
  "offload.ts": "assembly/plugin/advanced/offload.ts",
  "rings.ts": "assembly/plugin/advanced/rings.ts",
  "layout/advanced.ts": "shared/layout/advanced.ts",
  "layout/plugin.ts": "shared/layout/plugin.ts",
  "layout/virtio.ts": "shared/layout/virtio.ts",
  "plugin_test.ts": "services/cli/plugin_template/plugin_test.ts",
  "README.md": "services/cli/plugin_template/README.md",
  "LICENSE": "LICENSE",
};
/** Those that are AssemblyScript, and import each other. */
const SOURCES = Object.entries(FILES).filter(([, from]) => from.startsWith("assembly/")).map(([path]) => path);
/** What plugin_template/README.md calls the plugin. */
const TEMPLATE_NAME = /\bmynic\b/g;

/** Throws unless a vendor can publish plugins under a name. */
export function mustBeFree(name: string): void {
  const said = PluginInfo.shape.name.safeParse(name);
  if (!said.success) throw new UsageError(`name "${name}": it ${said.error.issues[0]?.message}`);
  // The plugins that come along are called as the hardware they are for.
  if (!Hardware.safeParse(name).success) return;
  throw new UsageError(`name ${name}: the plugin that comes with the fabric has it; choose another one`);
}

/** The content of each file of a new plugin. */
function contents(name: string, compiler: string): Map<string, string> {
  const files = new Map(
    Object.entries(FILES).map(([path, from]) => {
      const text = Deno.readTextFileSync(new URL(from, ROOT));
      if (path === "README.md") return [path, text.replaceAll(TEMPLATE_NAME, name)];
      const moved = text.replaceAll(/"(?:\.\.\/)+shared\/layout\/(\w+)\.ts"/g, '"./layout/$1.ts"');
      // AssemblyScript wants imports without a suffix, Deno with one.
      return [path, SOURCES.includes(path) ? moved.replaceAll(/from "(\.[^"]+)\.ts"/g, 'from "$1"') : moved];
    }),
  );
  // Without a word to abort with, an assert that does not hold is a trap.
  const flags = [...compilerFlags(PLUGIN_PAGES, PLUGIN_PAGES), "--use", "abort="].join(" ");
  const run = "deno run --quiet --allow-read --allow-write=. --allow-env";
  const config = {
    tasks: {
      build: `${run} ${compiler} plugin.ts --outFile plugin.wasm ${flags}`,
      test: "deno task --quiet build && deno test --allow-read",
    },
    nodeModulesDir: "none",
    fmt: { lineWidth: 120 },
    // AssemblyScript is not quite TypeScript: Deno's formatter drops its decorators.
    exclude: SOURCES,
  };
  files.set("deno.json", `${JSON.stringify(config, null, 2)}\n`);
  files.set(".gitignore", "*.wasm\n*.image\nvendor.json\n");
  return files;
}

/** Whether nothing is at `dir`, or an empty directory. */
async function isFree(dir: string): Promise<boolean> {
  try {
    return (await Array.fromAsync(Deno.readDir(dir))).length === 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    if (error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

/**
 * Makes a plugin in the directory `dir`, which is made, or is empty, called `name` or as the directory. `compiler` is the
 * specifier of AssemblyScript's compiler. Throws UsageError if it would be one that cannot be published.
 */
export async function newPlugin(
  dir: string,
  name: string | undefined,
  compiler: string,
): Promise<{ name: string; dir: string }> {
  const target = resolve(dir);
  const called = name ?? basename(target);
  try {
    mustBeFree(called);
  } catch (error) {
    if (name !== undefined || !(error instanceof UsageError)) throw error;
    throw new UsageError(`${error.message} (--name says another than the directory's)`);
  }
  if (!await isFree(target)) {
    throw new UsageError(`Cannot make a plugin in ${target}: something is there already; name a new directory`);
  }
  for (const [path, text] of contents(called, compiler)) {
    const file = `${target}/${path}`;
    await Deno.mkdir(dirname(file), { recursive: true });
    await Deno.writeTextFile(file, text, { createNew: true });
  }
  return { name: called, dir: target };
}
