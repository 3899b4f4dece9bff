/**
 * Upgrades of services: a process of the program that is on disk now does a service's work. The NIC and vhost have a
 * standby, which takes over between two bursts (shared/standby/upgrade.ts). No frame goes through the PF and the vf
 * service: their process ends, and whoever restarts services starts a new one.
 */
import { createRoute, type OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { log } from "./log.ts";
import type { Operations } from "./operations.ts";
import type { Peer } from "./peer.ts";
import { ApiError } from "./problem.ts";
import { STARTED_AT } from "./readiness.ts";
import { json, problemBody } from "./route_parts.ts";

/** How long the answer to an upgrade may take to get out. */
export const ANSWER_MS = 50;
/** How long a service may take to end, to be started and to be ready. */
const RESTART_MS_MAX = 20_000;
const LOOK_MS = 20;
const LOOK_MS_MAX = 2000;

/** Services, in the order in which all are upgraded: each behind those that it asks, and last the one that is asked. */
export const UpgradedService = z.enum(["nic", "vhost", "vf", "pf"]);
export type UpgradedService = z.output<typeof UpgradedService>;

/** The process that does a service's work after an upgrade. */
export const ServiceUpgrade = z.object({
  pid: z.int().openapi({ description: "The process that does its work now" }),
  before: z.int().openapi({ description: "The process that did" }),
}).openapi("ServiceUpgrade");
export type ServiceUpgrade = z.output<typeof ServiceUpgrade>;

/** A service that ends now and is started again. */
export const ServiceRestart = z.object({
  before: z.int().openapi({ description: "The process that ends" }),
  startedAt: z.iso.datetime().openapi({
    description: "When it was started: /readyz of the next one says another time",
  }),
  restartedBy: z.string().openapi({ description: "Who starts the service again", example: "up" }),
}).openapi("ServiceRestart");
export type ServiceRestart = z.output<typeof ServiceRestart>;

/** What a service that is upgraded by a restart answers. */
export const restartAnswer = json(ServiceRestart, "It ends now: /readyz says when another process is ready");

/** A service that is upgraded by a restart. */
export class Restarts {
  readonly #service: "pf" | "vf";
  readonly #restartedBy: string | undefined;
  readonly #ended = Promise.withResolvers<void>();
  #isEnding = false;

  /** `restartedBy`: who starts the service again when it has ended; nobody, if that is not said. */
  constructor(service: "pf" | "vf", restartedBy = Deno.env.get("RINGFABRIC_RESTARTED_BY")) {
    this.#service = service;
    this.#restartedBy = restartedBy || undefined;
  }

  /** Resolves when the service is to end. */
  get ended(): Promise<void> {
    return this.#ended.promise;
  }

  /**
   * Has this process end, a moment after it has answered. Throws ApiError why it cannot: if nobody would start the
   * service again, or one of its `operations` is under way.
   */
  begin(operations: Operations): ServiceRestart {
    const [service, restartedBy] = [this.#service, this.#restartedBy];
    if (this.#isEnding) throw new ApiError(409, `${service} is being upgraded already`, "service", "upgrading");
    if (restartedBy === undefined) {
      const detail = `${service} goes on as it was: nobody would start it again. Start the new program yourself, or ` +
        "set RINGFABRIC_RESTARTED_BY to the name of what restarts it";
      throw new ApiError(409, detail, "service", "not-upgraded");
    }
    operations.close(`${service} goes on as it was`);
    this.#isEnding = true;
    log("info", service, `process ${Deno.pid} ends to be upgraded: ${restartedBy} starts the program on disk`);
    setTimeout(() => this.#ended.resolve(), ANSWER_MS);
    return { before: Deno.pid, startedAt: STARTED_AT, restartedBy };
  }
}

/**
 * Waits until another process of a service is ready, which `peer` asks and messages call `what`. Throws ApiError, with
 * what there is instead, if that takes too long.
 */
export async function restarted(
  what: string,
  peer: Pick<Peer, "readiness">,
  { before, startedAt, restartedBy }: ServiceRestart,
  deadlineMs = RESTART_MS_MAX,
): Promise<ServiceUpgrade> {
  const deadline = performance.now() + deadlineMs;
  for (;;) {
    const said = await peer.readiness(LOOK_MS_MAX);
    const isNew = said?.startedAt !== undefined && said.startedAt !== startedAt;
    const { ready, pid = 0, reason = "it does not say why" } = said ?? {};
    if (isNew && ready) return { pid, before };
    if (performance.now() > deadline) {
      const found = isNew
        ? `process ${pid} runs in place of ${before}, and is not ready: ${reason}`
        : said
        ? `process ${before} has not ended`
        : `process ${before} has ended, and none of the new program answers. ${restartedBy} goes on starting it, and ` +
          "its log says why that fails; to go back, put the old program in its place";
      throw new ApiError(503, `${what}, after ${deadlineMs / 1000} s: ${found}`, "service", "not-ready");
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Answers that a new process does a service's work, or that the service's process ends now. */
export async function answerUpgrade(c: Context, upgrade: Promise<ServiceUpgrade | ServiceRestart>) {
  const answer = await upgrade;
  return "pid" in answer ? c.json(answer, 200) : c.json(answer, 202);
}

const DESCRIPTIONS = {
  200: "Has a new process of the program as it is now take over between two bursts, or says why that cannot be",
  202: "Ends this process, so that the program as it is now is started, or says why that cannot be",
};

/** What the document of a service says of its own upgrade, which is answered with `status`. */
const upgradeRoute = <S extends 200 | 202, A extends ReturnType<typeof json>>(status: S, answer: A) =>
  createRoute({
    method: "post",
    path: "/api/v1/upgrade",
    description: DESCRIPTIONS[status],
    responses: { [status]: answer, 409: problemBody("Everything is as it was") } as
      & Record<S, A>
      & Record<409, ReturnType<typeof problemBody>>,
  });

/** Mounts the route for an upgrade without an end of the service's work. `upgrade` throws ApiError if it cannot be. */
export function mountUpgrade(app: OpenAPIHono, upgrade: () => Promise<ServiceUpgrade>): void {
  app.openapi(upgradeRoute(200, json(ServiceUpgrade, "It takes over now")), async (c) => c.json(await upgrade(), 200));
}

/** Mounts the route for an upgrade by a restart. `restart` throws ApiError if it cannot be. */
export function mountRestart(app: OpenAPIHono, restart: () => ServiceRestart): void {
  app.openapi(upgradeRoute(202, restartAnswer), (c) => c.json(restart(), 202));
}
