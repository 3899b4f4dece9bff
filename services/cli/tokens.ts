/** `fabric token …`: tokens for others, and a new one for oneself; in force at once, while the fabric runs. */
import type { Command } from "commander";
import {
  changeTokens,
  hashToken,
  newToken,
  readTokens,
  Role,
  type TokenEntry,
  tokenFile,
  TokenName,
  writePrivately,
} from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { NotUnderstood, oneId, UsageError } from "./values.ts";
import { table } from "./views.ts";

/** The fabric's run directory, and the tokens that are there. */
function tokensOf({ runDir }: Context): { runDir: string; tokens: TokenEntry[] } {
  const tokens = runDir === undefined ? undefined : readTokens(runDir);
  // Nothing is made in a directory that is no fabric's.
  if (runDir === undefined || !tokens) {
    throw new UsageError(
      `no fabric with tokens ${runDir === undefined ? "of yours runs" : `in ${runDir}`}: name its --run-dir`,
    );
  }
  return { runDir, tokens };
}

/** What a new token is to be good for, from the words of the command line. */
function readRole(role: string, vf: string | undefined): Role {
  const parsed = Role.safeParse(vf === undefined ? { role } : { role, vf: oneId(vf) });
  if (!parsed.success || parsed.data.role === "service") {
    throw new NotUnderstood(`${role}${vf === undefined ? "" : ` ${vf}`}: say read, operator, or vf and its number`);
  }
  return parsed.data;
}

function whatFor(entry: TokenEntry): string {
  return entry.role === "vf" ? `vf ${entry.vf}` : entry.role;
}

/** Adds the commands to `parent`. */
export function tokenCommands(parent: Command, context: Context): void {
  const show = (value: unknown, text: () => string) => context.show(value, text);
  examples(
    parent.command("list").description("names of all tokens, and what each is good for"),
    "token list",
  ).action(() => {
    const { tokens } = tokensOf(context);
    show(tokens, () => table(["NAME", "GOOD FOR"], tokens.map((entry) => [entry.name, whatFor(entry)])));
  });
  examples(
    parent.command("add <name> <role> [vf]").description(
      "a new token, printed once: read (looks), operator (everything), or vf N (that VF's policy and counters)",
    ),
    "token add prometheus read > prometheus.token",
    "token add bob vf 1",
  )
    .action((name: string, role: string, vf: string | undefined) => {
      const { runDir } = tokensOf(context);
      if (!TokenName.safeParse(name).success) throw new NotUnderstood(`"${name}": a name has 1 to 64 characters`);
      const goodFor = readRole(role, vf);
      const token = newToken();
      changeTokens(runDir, (before) => {
        if (before.some((entry) => entry.name === name)) {
          throw new UsageError(`there is a token ${name}: remove it first`);
        }
        return [...before, { name, ...goodFor, sha256: hashToken(token) }];
      });
      show({ name, token }, () => token);
    });
  examples(
    parent.command("remove <name>").description("a token that is good for nothing from now on"),
    "token remove bob",
  ).action((name: string) => {
    const { runDir } = tokensOf(context);
    changeTokens(runDir, (before) => {
      const kept = before.filter((entry) => entry.name !== name);
      if (kept.length === before.length) throw new UsageError(`there is no token ${name}`);
      if (name === "operator" || name === "services") {
        throw new UsageError(`${name} stays: fabric token rotate exchanges it`);
      }
      return kept;
    });
    show({ name }, () => `${name} is good for nothing any more`);
  });
  examples(
    parent.command("rotate").description("a new operator's token; the one before is good for nothing any more"),
    "token rotate",
  ).action(
    () => {
      const { runDir } = tokensOf(context);
      if (Deno.env.get("RINGFABRIC_TOKEN")) {
        throw new UsageError("RINGFABRIC_TOKEN is set: unset it, or exchange the token where it comes from");
      }
      const token = newToken();
      const sha256 = hashToken(token);
      changeTokens(runDir, (before) => {
        writePrivately(tokenFile(runDir), `${token}\n`);
        return before.map((entry) => entry.name === "operator" ? { ...entry, sha256 } : entry);
      });
      show({ file: tokenFile(runDir) }, () => `the new token is in ${tokenFile(runDir)}`);
    },
  );
}
