/** An upgrade: a new process of the program as it is now stands by, and this one dies on purpose, between two bursts. */
import { createRoute, type OpenAPIHono } from "@hono/zod-openapi";
import { ApiError, Problem, ServiceUpgrade as Upgrade } from "../api/mod.ts";
import type { Mirror } from "./mirror.ts";

/** How long the answer to an upgrade may take to get out. */
const ANSWER_MS = 50;

/** Upgrades of one service. */
export class Upgrades<Change> {
  readonly #mirror: Mirror<Change>;
  readonly #what: string;
  readonly #handOver: () => Promise<void>;
  #isHandingOver = false;

  /** `what`: the service in words; `handOver` ends this process with everything told. */
  constructor(mirror: Mirror<Change>, what: string, handOver: () => Promise<void>) {
    this.#mirror = mirror;
    this.#what = what;
    this.#handOver = handOver;
  }

  /**
   * Has a new process of the program as it is now take over, between two bursts; answers which one, a moment before this
   * one ends. Throws ApiError why it cannot be: then this one goes on.
   */
  async begin(): Promise<Upgrade> {
    if (this.#isHandingOver) throw new ApiError(409, `${this.#what} is being upgraded already`, "service", "upgrading");
    this.#isHandingOver = true;
    try {
      const pid = await this.#mirror.renew();
      setTimeout(() => void this.#handOver(), ANSWER_MS);
      return { pid, before: Deno.pid };
    } catch (error) {
      this.#isHandingOver = false;
      const reason = `${this.#what} goes on as it was: ${(error as Error).message}`;
      throw new ApiError(409, reason, "service", "not-upgraded");
    }
  }
}

/** Mounts the route for an upgrade on `app`. `upgrade` throws ApiError if it cannot be. */
export function mountUpgrade(app: OpenAPIHono, upgrade: () => Promise<Upgrade>): void {
  app.openapi(
    createRoute({
      method: "post",
      path: "/api/v1/upgrade",
      description:
        "Has a new process of the program as it is now take over between two bursts, or says why that cannot be",
      responses: {
        200: { content: { "application/json": { schema: Upgrade } }, description: "It takes over now" },
        409: { content: { "application/problem+json": { schema: Problem } }, description: "Everything is as it was" },
      },
    }),
    async (c) => c.json(await upgrade(), 200),
  );
}
