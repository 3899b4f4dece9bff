/** Which fabric the command line speaks to, and with which token: what was said, or what a fabric of this user has left. */
import { defaultRunDir, demoRunDir, fabricFile, runDirFault, tokenFile } from "../../shared/api/mod.ts";

/** Where a fabric is. */
export interface FoundFabric {
  api: string;
  token: string | undefined;
  runDir: string;
}

/** What was said on the command line. */
export interface FindOptions {
  api?: string | undefined;
  runDir?: string | undefined;
}

const API_DEFAULT = "http://127.0.0.1:8080";

function read(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.PermissionDenied) return undefined;
    throw error;
  }
}

/** Whether a directory is this user's alone: one in /tmp may be somebody else's, who waits for a token to be sent there. */
function isOwn(runDir: string): boolean {
  try {
    return runDirFault(runDir) === undefined;
  } catch {
    return false;
  }
}

/** The API that the fabric in `runDir` says it has. */
function apiOf(runDir: string): string | undefined {
  const text = read(fabricFile(runDir));
  return text === undefined ? undefined : (JSON.parse(text) as { api: string }).api;
}

/**
 * Finds the fabric. --run-dir (RINGFABRIC_RUN_DIR) says all; else it is the one at --api (RINGFABRIC_API), or the one of
 * this user that runs. RINGFABRIC_TOKEN takes the place of a token that was found.
 */
export function findFabric({ api = Deno.env.get("RINGFABRIC_API"), runDir }: FindOptions): FoundFabric {
  const said = runDir ?? Deno.env.get("RINGFABRIC_RUN_DIR");
  const dirs = said === undefined ? [defaultRunDir(), demoRunDir()].filter(isOwn) : [said];
  const found = dirs.find((dir) => {
    const own = apiOf(dir);
    return own !== undefined && (api === undefined || api === own);
  });
  const dir = found ?? said ?? defaultRunDir();
  const token = Deno.env.get("RINGFABRIC_TOKEN") || (found === undefined ? undefined : read(tokenFile(found)));
  return { api: api ?? (found === undefined ? undefined : apiOf(found)) ?? API_DEFAULT, token, runDir: dir };
}
