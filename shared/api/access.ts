/**
 * Who may ask what of the services' APIs. A token is a secret; services know only their hashes, from a file that `up`
 * writes and `fabric token` changes, and that is read again when it changes. So a token is exchanged without a restart,
 * and no service can learn another's from it.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { z } from "@hono/zod-openapi";

/** What a token is good for. */
export const Role = z.discriminatedUnion("role", [
  /** May do everything. */
  z.strictObject({ role: z.literal("operator") }),
  /** A service of the fabric, asking another one. */
  z.strictObject({ role: z.literal("service") }),
  /** Looks, and changes nothing; what others send to each other is not shown to it. */
  z.strictObject({ role: z.literal("read") }),
  /** One VF: its state, its counters, and its policy. */
  z.strictObject({ role: z.literal("vf"), vf: z.int().min(0).max(255) }),
]);
export type Role = z.output<typeof Role>;

/** What a token is called. */
export const TokenName = z.string().regex(/^[^\p{Cc}]{1,64}$/u, "1 to 64 characters");

/** One token as the file has it. */
export const TokenEntry = z.object({ name: TokenName, sha256: z.hex().length(64) }).and(Role);
export type TokenEntry = z.output<typeof TokenEntry>;

/** The file: `access.json` in the run directory. */
export const AccessFile = z.object({ tokens: z.array(TokenEntry) });

/** SHA-256 of a token, in hexadecimal. */
export function hashToken(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}

/** A new token: 32 random bytes. */
export function newToken(): string {
  return crypto.getRandomValues(new Uint8Array(32)).toHex();
}

/** Says which tokens are good, and for what. */
export class Access {
  readonly #file: string | undefined;
  readonly #own: TokenEntry[];
  #entries: TokenEntry[] = [];
  /** Which state of the file the entries are of. */
  #version = "";

  /** `file`: where the hashes are; `token`: an operator's token, beside or instead of it. */
  constructor({ file, token }: { file?: string | undefined; token?: string | undefined }) {
    this.#file = file;
    this.#own = token === undefined ? [] : [{ name: "RINGFABRIC_TOKEN", role: "operator", sha256: hashToken(token) }];
  }

  /** What `token` is good for; `undefined`: nothing. Throws if the file cannot be read: nobody is let in then. */
  roleOf(token: string): TokenEntry | undefined {
    this.#refresh();
    const hash = new TextEncoder().encode(hashToken(token));
    let found: TokenEntry | undefined;
    // All are compared, each in the same time: nothing is to be learned from how long it takes.
    for (const entry of [...this.#own, ...this.#entries]) {
      if (timingSafeEqual(new TextEncoder().encode(entry.sha256), hash)) found ??= entry;
    }
    return found;
  }

  #refresh(): void {
    if (this.#file === undefined) return;
    const { mtime, ino, size } = Deno.statSync(this.#file);
    const version = `${mtime?.getTime()} ${ino} ${size}`;
    if (version === this.#version) return;
    this.#entries = AccessFile.parse(JSON.parse(Deno.readTextFileSync(this.#file))).tokens;
    this.#version = version;
  }
}

const OWN_PATH = /^\/api\/v1\/vfs\/(\d{1,3})(\/stats|\/mode|\/uplink|\/live|\/attach|\/capture)?$/;
const CAPTURE_PATH = /\/captures?$/;
/** Fields of a VF's policy that reach into somebody else's port, so that its own token cannot set them. */
const OTHERS_FIELDS = ["mirror"];

/** Fields of a policy that a role may change in no port, though it may change others. */
export function fixedFields({ role }: Role): string[] {
  return role === "vf" ? OTHERS_FIELDS : [];
}

/** Where whoever has a token is told what it is good for. */
const TOKEN_PATH = "/api/v1/token";

/** Whether a role may send a request: reads have no effects, whatever their path. */
export function isAllowed(role: Role, method: string, path: string): boolean {
  const isRead = method === "GET" || method === "HEAD";
  switch (role.role) {
    case "operator":
    case "service":
      return true;
    case "read":
      return isRead && !CAPTURE_PATH.test(path);
    case "vf": {
      if (path === TOKEN_PATH) return isRead;
      const [, vf, part] = OWN_PATH.exec(path) ?? [];
      return vf === String(role.vf) && (isRead || (method === "PATCH" && part === undefined));
    }
  }
}
