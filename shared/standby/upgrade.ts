/** An upgrade: a new process of the program as it is now stands by, and this one dies on purpose, between two bursts. */
import { ANSWER_MS, ApiError, log, oneLine, type ServiceUpgrade } from "../api/mod.ts";
import type { Mirror } from "./mirror.ts";

/** Upgrades of one service. */
export class Upgrades<Change> {
  readonly #mirror: Mirror<Change>;
  readonly #what: string;
  readonly #handOver: () => Promise<void>;
  #isUpgrading = false;
  #handingOver: Promise<void> | undefined;

  /**
   * `what`: the service in words; `handOver` ends this process with everything told. It resolves only if nobody would go
   * on in its place: then this one does.
   */
  constructor(mirror: Mirror<Change>, what: string, handOver: () => Promise<void>) {
    this.#mirror = mirror;
    this.#what = what;
    this.#handOver = handOver;
  }

  /**
   * Has a new process of the program as it is now take over, between two bursts; answers which one, a moment before this
   * one ends. Throws ApiError why it cannot be: then this one goes on.
   */
  async begin(): Promise<ServiceUpgrade> {
    if (this.#isUpgrading) throw new ApiError(409, `${this.#what} is being upgraded already`, "service", "upgrading");
    this.#isUpgrading = true;
    try {
      const pid = await this.#mirror.renew();
      setTimeout(() => void this.#end(pid), ANSWER_MS);
      return { pid, before: Deno.pid };
    } catch (error) {
      this.#isUpgrading = false;
      const reason = `${this.#what} goes on as it was: ${(error as Error).message}`;
      throw new ApiError(409, reason, "service", "not-upgraded");
    }
  }

  async #end(heir: number): Promise<void> {
    await this.handOver();
    this.#isUpgrading = false;
    const why = `process ${heir}, which was to take over, has ended or is stopped`;
    log("warn", this.#mirror.service, `${this.#what} goes on as it was: ${why}`);
  }

  /** Ends this process, whose work another one goes on with. Resolves if nobody would: then this process goes on. */
  handOver(): Promise<void> {
    const { service } = this.#mirror;
    return this.#handingOver ??= this.#handOver()
      .catch((error) => log("error", service, `the hand-over failed: ${oneLine(error)}`))
      .finally(() => this.#handingOver = undefined);
  }
}
