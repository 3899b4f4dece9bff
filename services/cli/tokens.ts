/** `fabric token …`: tokens for others, and a new one for oneself; in force at once, while the fabric runs. */
import type { Command } from "commander";
import {
  AccessFile,
  accessFile,
  hashToken,
  newToken,
  Role,
  type TokenEntry,
  tokenFile,
  withTokensLocked,
  writePrivately,
} from "../../shared/api/mod.ts";
import type { Context } from "./context.ts";
import { UsageError } from "./values.ts";
import { table } from "./views.ts";

function readTokens(runDir: string): TokenEntry[] {
  try {
    return AccessFile.parse(JSON.parse(Deno.readTextFileSync(accessFile(runDir)))).tokens;
  } catch (error) {
    throw new UsageError(
      `cannot read the tokens of the fabric in ${runDir} (${(error as Error).message}): name its --run-dir`,
    );
  }
}

/** Replaces the tokens by what `change` makes of them. */
function changeTokens(runDir: string, change: (before: TokenEntry[]) => TokenEntry[]): void {
  // Nothing is made in a directory that is no fabric's.
  readTokens(runDir);
  withTokensLocked(runDir, () => {
    writePrivately(accessFile(runDir), JSON.stringify({ tokens: change(readTokens(runDir)) }, null, 2));
  });
}

function whatFor(entry: TokenEntry): string {
  return entry.role === "vf" ? `vf ${entry.vf}` : entry.role;
}

/** Adds the commands to `parent`. */
export function tokenCommands(parent: Command, context: Context): void {
  const show = (value: unknown, text: () => string) => context.show(value, text);
  const fabric = () => context.fabric;
  parent.command("list").description("names of all tokens, and what each is good for").action(() => {
    const tokens = readTokens(fabric().runDir);
    show(tokens, () => table(["NAME", "GOOD FOR"], tokens.map((entry) => [entry.name, whatFor(entry)])));
  });
  parent.command("add <name> <role> [vf]")
    .description(
      "a new token, printed once: read (looks), operator (everything), or vf N (that VF's policy and counters)",
    )
    .action((name: string, role: string, vf: string | undefined) => {
      const { runDir } = fabric();
      const parsed = Role.safeParse(vf === undefined ? { role } : { role, vf: Number(vf) });
      if (!parsed.success || parsed.data.role === "service") {
        throw new UsageError(`${role} ${vf ?? ""}: say read, operator, or vf and its number`);
      }
      const { data } = parsed;
      const token = newToken();
      changeTokens(runDir, (before) => {
        if (before.some((entry) => entry.name === name)) {
          throw new UsageError(`there is a token ${name}: remove it first`);
        }
        return [...before, { name, ...data, sha256: hashToken(token) }];
      });
      show({ name, token }, () => token);
    });
  parent.command("remove <name>").description("a token that is good for nothing from now on").action((name: string) => {
    const { runDir } = fabric();
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
  parent.command("rotate").description("a new operator's token; the one before is good for nothing any more").action(
    () => {
      const { runDir } = fabric();
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
