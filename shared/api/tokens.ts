/** The tokens' file of a fabric: read, and changed by one at a time. */
import { AccessFile, type TokenEntry } from "./access.ts";
import { accessFile, writePrivately } from "./run_dir.ts";

/** The tokens of the fabric in `runDir`; none if no fabric runs there. Throws, with what to do, if they cannot be read. */
export function readTokens(runDir: string): TokenEntry[] | undefined {
  const path = accessFile(runDir);
  try {
    return AccessFile.parse(JSON.parse(Deno.readTextFileSync(path))).tokens;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new Error(`Cannot read ${path}: ${(error as Error).message}; remove it, and tokens of others with it`);
  }
}

/**
 * Replaces the tokens by what `change` makes of them, while nobody else changes them. None: the file goes. Throws, and
 * changes nothing, if a service could not read them.
 */
export function changeTokens(runDir: string, change: (before: TokenEntry[]) => TokenEntry[]): void {
  // The directory's own lock, which ends with the descriptor.
  using lock = Deno.openSync(runDir);
  lock.lockSync(true);
  const before = readTokens(runDir);
  const tokens = change(before ?? []);
  AccessFile.parse({ tokens });
  if (tokens.length > 0) writePrivately(accessFile(runDir), JSON.stringify({ tokens }, null, 2));
  else if (before) Deno.removeSync(accessFile(runDir));
}
