/** `fabric` as somebody at a terminal calls it. */
import type { TestFabric } from "./fabric.ts";

/** What came of a call of `fabric`. */
export interface CliAnswer {
  code: number;
  out: string;
  err: string;
}

/** Runs `fabric`, with no fabric in mind, and answers what came of it. */
export async function fabricCli(args: string[], env: Record<string, string> = {}): Promise<CliAnswer> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", "services/cli/main.ts", ...args],
    env: { NO_COLOR: "1", ...env },
  }).output();
  const text = new TextDecoder();
  return { code, out: text.decode(stdout), err: text.decode(stderr) };
}

/** Asks a fabric of the tests. */
export function cli(fabric: TestFabric, ...args: string[]): Promise<CliAnswer> {
  return fabricCli(["--run-dir", fabric.runDir, ...args]);
}
