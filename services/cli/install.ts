/**
 * `deno task install`: puts `fabric` where a shell finds it. It is a small launcher that runs the command line of this
 * checkout from any directory, with the permissions that `deno task fabric` has. It starts the Deno that has installed
 * it, because npx takes a second to find the same one; npx does where that Deno is gone.
 */
import { dirname, fromFileUrl, join, resolve } from "@std/path";
import { Command } from "commander";
import config from "../../deno.json" with { type: "json" };
import { oneLine, path, say, shellQuoted } from "../../shared/api/mod.ts";
import { UsageError } from "./values.ts";

const ROOT = resolve(dirname(fromFileUrl(import.meta.url)), "../..");
const NPX_DENO = "npx -y deno@2.9.6";
/** By this line a launcher is known as one, and may be written anew. */
const MARK = "# ringfabric's command line: written by its `task install`, which may replace it.";

/** The launcher's text. */
function launcher(): string {
  const flags = config.tasks.fabric.split(" ").filter((word) => word.startsWith("--")).join(" ");
  return `#!/bin/sh
${MARK}
root=${shellQuoted(ROOT)}
deno=${shellQuoted(Deno.execPath())}
if [ ! -e "$root/services/cli/main.ts" ]; then
  echo "fabric: $root is gone: run \\\`${NPX_DENO} task install\\\` in another checkout" >&2
  exit 1
fi
set -- run ${flags} \\
  --frozen --config "$root/deno.json" "$root/services/cli/main.ts" "$@"
[ ! -x "$deno" ] || exec "$deno" "$@"
exec ${NPX_DENO} "$@"
`;
}

/** Whether there is a launcher already; throws if something else is there, which is not ours to replace. */
function isInstalled(file: string): boolean {
  try {
    if (Deno.lstatSync(file).isFile && Deno.readTextFileSync(file).includes(`\n${MARK}\n`)) return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  throw new UsageError(`${file} is there and is not ringfabric's: remove it, or name another directory with --dir`);
}

/** Writes the launcher into `dir`; answers where it is. */
function install(dir: string): string {
  Deno.mkdirSync(dir, { recursive: true });
  const file = join(dir, "fabric");
  isInstalled(file);
  // Whole or not at all: a shell may be reading the one before.
  const part = Deno.makeTempFileSync({ dir, prefix: ".fabric-" });
  try {
    Deno.writeTextFileSync(part, launcher());
    Deno.chmodSync(part, 0o755);
    Deno.renameSync(part, file);
  } catch (error) {
    Deno.removeSync(part);
    throw error;
  }
  return file;
}

/** Where the launcher is put, if nothing is said. */
function defaultDir(): string {
  const home = Deno.env.get("HOME");
  if (!home) throw new UsageError("HOME is not set: say where to install with --dir");
  return join(home, ".local", "bin");
}

const command = new Command("install")
  .description("Installs the command line as `fabric`, for use from every directory")
  .option("--dir <dir>", "where to put it (default: ~/.local/bin)", path)
  .option("--remove", "take it away again", false)
  .parse();

try {
  const { dir: said, remove } = command.opts<{ dir?: string; remove: boolean }>();
  // A task runs in the checkout; INIT_CWD is where its user is.
  const dir = said === undefined ? defaultDir() : resolve(Deno.env.get("INIT_CWD") ?? ".", said);
  if (remove) {
    const file = join(dir, "fabric");
    if (!isInstalled(file)) throw new UsageError(`there is no ${file}`);
    Deno.removeSync(file);
    say(`removed ${file}`);
  } else {
    say(`installed ${install(dir)}`);
    if (!(Deno.env.get("PATH") ?? "").split(":").includes(dir)) {
      say(`It is not on PATH: export PATH=${shellQuoted(dir)}:"$PATH", and put that into your shell's profile.`);
    }
  }
} catch (error) {
  console.error(`install: ${oneLine(error)}`);
  Deno.exit(1);
}
