/**
 * One-time rights to drive a VF. The hypervisor asks for one and hands it to a guest, which shows it when it attaches;
 * it is good for one attach to one VF, and only for a short while.
 */
import { encodeHex } from "@std/encoding/hex";

/** How long a token is good. */
export const TOKEN_LIFE_MS = 10_000;
const TOKEN_BYTES = 16;
/** Tokens that are out at a time; the oldest goes first. */
const TOKENS_MAX = 1024;

/** The tokens that are out. */
export class Tokens {
  readonly #out = new Map<string, { pool: number; untilMs: number }>();

  /** A new token for a pool. */
  issue(pool: number): string {
    if (this.#out.size >= TOKENS_MAX) this.#out.delete(this.#out.keys().next().value as string);
    const token = encodeHex(crypto.getRandomValues(new Uint8Array(TOKEN_BYTES)));
    this.#out.set(token, { pool, untilMs: performance.now() + TOKEN_LIFE_MS });
    return token;
  }

  /** Uses a token up: true if it was good for `pool`. */
  redeem(token: string, pool: number): boolean {
    const found = this.#out.get(token);
    this.#out.delete(token);
    return found !== undefined && found.pool === pool && performance.now() < found.untilMs;
  }
}
