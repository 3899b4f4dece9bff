/** What a person is told to type: commands that a shell takes as they are printed. */
import { defaultRunDir, shellQuoted, tokenFile } from "../../shared/api/mod.ts";

const DENO = "npx -y deno@2.9.6";

/** How the APIs are asked from a shell. */
export function tokenHint(runDir: string): string {
  const header = `authorization: Bearer $(cat ${shellQuoted(tokenFile(runDir))})`;
  return Deno.env.get("RINGFABRIC_TOKEN")
    ? 'Every API asks for the token: curl -H "authorization: Bearer $RINGFABRIC_TOKEN" …'
    : `Every API asks for the token: curl -H "${header}" …`;
}

/** The command line, for the fabric in `runDir`. */
export function fabricCommand(runDir: string): string {
  return `${DENO} task fabric${runDir === defaultRunDir() ? "" : ` --run-dir ${shellQuoted(runDir)}`}`;
}
