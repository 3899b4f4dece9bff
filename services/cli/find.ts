/** Which fabric the command line speaks to, and with which token: what was said, or what a fabric of this user has left. */
import { z } from "zod";
import { defaultRunDir, demoRunDir, fabricFile, isLoopback, runDirFault, tokenFile } from "../../shared/api/mod.ts";
import { NotUnderstood, shown, UsageError } from "./values.ts";

/** Where a fabric is. */
export interface FoundFabric {
  api: string;
  token: string | undefined;
  /** None: no run directory of this user is that fabric's. */
  runDir: string | undefined;
}

/** What was said on the command line. */
export interface FindOptions {
  api?: string | undefined;
  runDir?: string | undefined;
}

const API_DEFAULT = "http://127.0.0.1:8080";
const FabricFile = z.object({ api: z.url() });

function read(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).trim();
  } catch (error) {
    const { NotFound, NotADirectory, PermissionDenied } = Deno.errors;
    if ([NotFound, NotADirectory, PermissionDenied].some((kind) => error instanceof kind)) return undefined;
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

/** The API that the fabric in `runDir` says it has; none if no fabric runs there. */
function apiOf(runDir: string): string | undefined {
  const text = read(fabricFile(runDir));
  if (text === undefined) return undefined;
  try {
    return FabricFile.parse(JSON.parse(text)).api;
  } catch {
    throw new UsageError(`${fabricFile(runDir)} does not say where the fabric is: start the fabric again`);
  }
}

/** Whether two URLs are one place: all names of loopback are one host. */
export function isSamePlace(a: string, b: string): boolean {
  const [one, other] = [new URL(a), new URL(b)];
  const host = ({ hostname }: URL) => isLoopback(hostname.replace(/^\[|\]$/g, "")) ? "loopback" : hostname;
  return one.protocol === other.protocol && one.port === other.port && host(one) === host(other);
}

/** A place of an API as it was said, checked; `name` is the option or the variable that says it. */
export function saidUrl(name: string, text: string): string {
  const url = URL.parse(text);
  if (url && (url.username || url.password || url.search || url.hash)) {
    // It may be the page's, with a token in it: not shown.
    const variable = name === "--to" ? "RINGFABRIC_TO_TOKEN" : "RINGFABRIC_TOKEN";
    throw new NotUnderstood(`${name} is a URL such as ${API_DEFAULT}, and no more: a token goes into ${variable}`);
  }
  if (url && ["http:", "https:"].includes(url.protocol)) return text.replace(/\/$/, "");
  throw new NotUnderstood(`${name} ${shown(text)}: it is a URL such as ${API_DEFAULT}`);
}

/** A token as a variable says it, checked: what no header can carry is no token. Never shown. */
function saidToken(name: string): string | undefined {
  const token = Deno.env.get(name)?.trim() || undefined;
  if (token === undefined || /^[\x21-\x7e]+$/.test(token)) return token;
  throw new NotUnderstood(`${name} is no token: it has spaces, line ends or letters that no token has`);
}

/** The API that was said, checked. */
function saidApi({ api }: FindOptions): string | undefined {
  if (api) return saidUrl("--api", api);
  const variable = Deno.env.get("RINGFABRIC_API");
  return variable ? saidUrl("RINGFABRIC_API", variable) : undefined;
}

/** The run directory that was said: --run-dir (RINGFABRIC_RUN_DIR). */
function saidRunDir({ runDir }: FindOptions): string | undefined {
  return runDir || Deno.env.get("RINGFABRIC_RUN_DIR") || undefined;
}

/** The run directory that was said, else the one of this user's fabric that runs. The fabric of the first may be down. */
export function findRunDir(options: FindOptions): string | undefined {
  const api = saidApi(options);
  return saidRunDir(options) ?? [defaultRunDir(), demoRunDir()].filter(isOwn).find((dir) => {
    const own = apiOf(dir);
    return own !== undefined && (api === undefined || isSamePlace(api, own));
  });
}

/**
 * Finds the fabric: the one in --run-dir (RINGFABRIC_RUN_DIR), else the one at --api (RINGFABRIC_API), else the one of
 * this user that runs. RINGFABRIC_TOKEN takes the place of a token that was found. A token is only sent to the fabric
 * whose run directory it is in, or where --run-dir and --api are both said. Throws if a run directory was said and no
 * fabric runs there: what is meant for one fabric does not reach another.
 */
export function findFabric(options: FindOptions): FoundFabric {
  const runDir = findRunDir(options);
  const api = saidApi(options) ?? (runDir === undefined ? API_DEFAULT : apiOf(runDir));
  if (api === undefined) {
    throw new UsageError(`no fabric of yours runs in ${runDir}: name its run directory, or say where it is with --api`);
  }
  const token = saidToken("RINGFABRIC_TOKEN") ?? (runDir === undefined ? undefined : read(tokenFile(runDir)));
  return { api, token, runDir };
}

/**
 * Finds another fabric, to which something is to be moved: at `to`, with the token in RINGFABRIC_TO_TOKEN, or in a run
 * directory, where its address and its token are. A token of this fabric is never sent there.
 */
export function findTarget({ to, toRunDir }: { to?: string; toRunDir?: string }): FoundFabric {
  const api = to !== undefined ? saidUrl("--to", to) : toRunDir === undefined ? undefined : apiOf(toRunDir);
  if (api === undefined) {
    throw new UsageError(
      toRunDir === undefined
        ? "say where it is to go: --to http://HOST:8080, or --to-run-dir DIR"
        : `no fabric runs in ${shown(toRunDir)}`,
    );
  }
  const token = saidToken("RINGFABRIC_TO_TOKEN") ?? (toRunDir === undefined ? undefined : read(tokenFile(toRunDir)));
  if (token === undefined) {
    throw new UsageError(`set RINGFABRIC_TO_TOKEN to a token of the fabric at ${api}, or name its --to-run-dir`);
  }
  return { api, token, runDir: toRunDir };
}
