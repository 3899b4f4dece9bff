/**
 * What one guest may have of an engine, so that nobody uses up what all share: memory that is mapped, frames that wait
 * for it, buffers that it posts, descriptors that it submits. Whoever asks for more is refused, with the limit's name,
 * and keeps what it has; each refusal is counted.
 *
 * A ring can hold as many descriptors as it has entries, whatever its driver writes, so entries are what a queue takes of
 * its guest's quota when it starts. A path that keeps a guest's buffers for longer than a burst (those of emulated mode
 * without a copy do) has no more of them than its guest's rings have entries, and is thereby within the same quota; one
 * that has buffers beside the rings takes them from it by `Quota.take`, and gives them back.
 */
import { DeviceRefusal } from "../device/refusal.ts";
import type { DomainLimits } from "./regions.ts";

/** Limits on what one guest may have. */
export interface TenantLimits extends DomainLimits {
  /** Entries that its receive rings may have together. */
  receivesMax: number;
  /** Entries that its transmit rings may have together. */
  submissionsMax: number;
  /** Bytes of frames that may wait for it while it has no room; 0: none, they are dropped at once. */
  bufferBytesMax: number;
}

/** Of what one guest has so many at a time. */
export class Quota {
  readonly limit: number;
  readonly #code: string;
  readonly #of: string;
  #used = 0;

  /** `code`: with what it is refused; `of`: what there may be `limit` of, and how that is set. */
  constructor(limit: number, code: string, of: string) {
    this.limit = limit;
    this.#code = code;
    this.#of = of;
  }

  get used(): number {
    return this.#used;
  }

  /** Takes `n`, for `what`. Throws DeviceRefusal if that is more than there may be; nothing is taken then. */
  take(n: number, what: string): void {
    if (this.#used + n > this.limit) {
      throw new DeviceRefusal(
        this.#code,
        `${what}: ${this.#used} are in use, and there may be ${this.limit} ${this.#of}`,
      );
    }
    this.#used += n;
  }

  /** Gives `n` back. */
  give(n: number): void {
    this.#used -= n;
  }
}

/** The quotas of one guest's rings. */
export interface RingQuotas {
  readonly receives: Quota;
  readonly submissions: Quota;
}

/** New quotas. */
export function ringQuotas({ receivesMax, submissionsMax }: TenantLimits): RingQuotas {
  return {
    receives: new Quota(receivesMax, "receive-limit", "entries of receive rings in a VF (--vf-receives)"),
    submissions: new Quota(submissionsMax, "submission-limit", "entries of transmit rings in a VF (--vf-submissions)"),
  };
}

const LIMITS = new Set([
  ...["memory-limit", "too-many-regions", "arena-share", "arena-full", "receive-limit", "submission-limit"],
]);

/** How often each pool's guests were refused something for a limit, by its name. */
export class Refusals {
  readonly #counts = new Map<number, Map<string, number>>();

  /** Does what a pool's guest asks; counts it if a limit refuses it. */
  counting<T>(pool: number, ask: () => T): T {
    try {
      return ask();
    } catch (error) {
      if (error instanceof DeviceRefusal && LIMITS.has(error.code)) this.#count(pool, error.code);
      throw error;
    }
  }

  #count(pool: number, code: string): void {
    const counts = this.#counts.get(pool) ?? new Map<string, number>();
    this.#counts.set(pool, counts.set(code, (counts.get(code) ?? 0) + 1));
  }

  of(pool: number): Record<string, number> {
    return Object.fromEntries(this.#counts.get(pool) ?? []);
  }
}
