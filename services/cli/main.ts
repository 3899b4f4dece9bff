/** `fabric`: the fabric from the command line, in the words of `ip link set vf`. */
import { Command, CommanderError, Option } from "commander";
import { oneLine } from "../../shared/api/mod.ts";
import config from "../../deno.json" with { type: "json" };
import { captureCommand } from "./capture.ts";
import { completionCommands } from "./completion.ts";
import { Context, EXIT_SIGPIPE, EXIT_TROUBLE, OUTPUTS } from "./context.ts";
import { doctorCommand } from "./doctor.ts";
import { fileFault } from "./files.ts";
import { guestCommands } from "./guests.ts";
import { migrateCommands } from "./migrate.ts";
import { netdevCommands } from "./netdev.ts";
import { nicCommands } from "./nic.ts";
import { upgradeCommand } from "./upgrade.ts";
import { notUnderstood } from "./misunderstood.ts";
import { operationCommands } from "./operations.ts";
import { pageCommand } from "./page.ts";
import { pluginCommands } from "./plugins.ts";
import { policyFileCommands } from "./policy_file.ts";
import { tokenCommands } from "./tokens.ts";
import { uplinkCommands } from "./uplinks.ts";
import { NotUnderstood } from "./values.ts";
import { vfCommands } from "./vfs.ts";
import { vportCommands } from "./vports.ts";

const program = new Command("fabric")
  .description("Looks at and changes a running fabric")
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(notUnderstood(program, Deno.args, text)) })
  .option("--api <url>", "the PF's API, if it is not this user's fabric (RINGFABRIC_API)")
  .option("--run-dir <dir>", "the fabric's run directory, where its address and its token are (RINGFABRIC_RUN_DIR)")
  .addOption(new Option("-o, --output <how>", "how answers are shown").choices(OUTPUTS).default("table"))
  .option("--json", "short for -o json", false);

// Options of the program are taken from wherever they stand, and `plugin sign` has a --version of its own.
if (Deno.args.length <= 1) program.version(config.version);

const context = new Context(program);
vfCommands(program, context);
vportCommands(program, context);
nicCommands(program, context);
upgradeCommand(program, context);
pageCommand(program, context);
uplinkCommands(program, context);
netdevCommands(program, context);
captureCommand(program, context);
migrateCommands(program, context);
operationCommands(program, context);
doctorCommand(program, context);
policyFileCommands(program, context);
guestCommands(program, context);
pluginCommands(
  program.command("plugin").description("plugins that drive VFs from inside their guests"),
  context,
  config.imports["assemblyscript/asc"],
);
tokenCommands(program.command("token").description("who may ask this fabric's APIs what"), context);
completionCommands(program);

try {
  await program.parseAsync();
} catch (error) {
  context.progress.stop();
  // What commander has to say it has said.
  if (error instanceof CommanderError) Deno.exit(error.exitCode === 0 ? 0 : EXIT_TROUBLE);
  // Whoever reads from a pipe may have seen enough: this is how a program ends that is told so by a signal.
  if (error instanceof Deno.errors.BrokenPipe) Deno.exit(EXIT_SIGPIPE);
  console.error(`fabric: ${oneLine(fileFault(error))}`);
  Deno.exit(error instanceof NotUnderstood ? EXIT_TROUBLE : context.failureCode);
}
