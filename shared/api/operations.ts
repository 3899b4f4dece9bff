/**
 * The operations of a service: each goes on whether or not anybody waits for it, and can be looked at for some minutes
 * after its end. Bounded: the oldest that have ended make room.
 */
import { createRoute, z } from "@hono/zod-openapi";
import type { Context } from "hono";
import { log } from "./log.ts";
import type { ModeStep, VfMode } from "./mode.ts";
import { Operation, readPrefer, RETURN_MINIMAL } from "./operation.ts";
import { ApiError, Problem, problemDocument } from "./problem.ts";

/** Operations that are kept. */
const KEPT_MAX = 100;
/** How long one that has ended can be looked at. */
const KEPT_MS = 10 * 60_000;

/** How far an operation is. */
export interface Progress {
  readonly steps: readonly ModeStep[];
  /** The step that is under way. */
  readonly now?: string | undefined;
}

/** One operation, from its start on. */
export class Run {
  readonly id: string;
  readonly result: Promise<VfMode>;
  readonly #what: string;
  readonly #startedAt = new Date().toISOString();
  #end: { at: string; ms: number; value: VfMode } | { at: string; ms: number; error: unknown } | undefined;
  /** Whoever carries it out says here how far it is. */
  progress: Progress = { steps: [] };

  constructor(id: string, what: string, act: (run: Run) => Promise<VfMode>) {
    this.id = id;
    this.#what = what;
    const when = () => ({ at: new Date().toISOString(), ms: performance.now() });
    this.result = Promise.resolve().then(() => act(this)).then((value) => {
      this.#end = { ...when(), value };
      return value;
    }, (error) => {
      this.#end = { ...when(), error };
      throw error;
    });
    this.result.catch((error) => error instanceof ApiError || log("error", "api", `${what}: ${error?.stack ?? error}`));
  }

  /** When it ended, by `performance.now()`. */
  get endedMs(): number | undefined {
    return this.#end?.ms;
  }

  get view(): Operation {
    const end = this.#end;
    const { steps, now } = this.progress;
    const begun = { id: this.id, what: this.#what, steps: [...steps], startedAt: this.#startedAt };
    if (!end) return { ...begun, state: "running", ...(now === undefined ? {} : { now }) };
    if ("value" in end) return { ...begun, state: "done", result: end.value, endedAt: end.at };
    const { error } = end;
    const problem = error instanceof ApiError
      ? problemDocument(error.status, error.message, error)
      : problemDocument(500, (error as Error).message);
    return { ...begun, state: "failed", problem, endedAt: end.at };
  }
}

/** The operations of a service. */
export class Operations {
  readonly #runs = new Map<string, Run>();
  #isClosed = false;

  /** From now on none is started. Throws ApiError, which begins with `what`, if one is under way. */
  close(what: string): void {
    const running = [...this.#runs.values()].find(({ endedMs }) => endedMs === undefined);
    if (running) {
      const detail = `${what}: a change is under way (${running.view.what}); ask again when it has ended`;
      throw new ApiError(409, detail, undefined, "operation-under-way");
    }
    this.#isClosed = true;
  }

  /** Starts one. Throws ApiError if as many as are kept are under way, if `id` is taken, or after `close`. */
  start(what: string, act: (run: Run) => Promise<VfMode>, id: string = crypto.randomUUID()): Run {
    if (this.#isClosed) {
      throw new ApiError(503, "the service is being upgraded: ask again in a second", undefined, "upgrading");
    }
    this.#forget(KEPT_MAX - 1);
    if (this.#runs.size >= KEPT_MAX) {
      const detail = `${KEPT_MAX} operations are under way: wait until one has ended`;
      throw new ApiError(503, detail, undefined, "too-many-operations");
    }
    if (this.#runs.has(id)) throw new ApiError(409, `there is an operation ${id} already`, "id", "operation-exists");
    const run = new Run(id, what, act);
    this.#runs.set(id, run);
    return run;
  }

  /** The latest ones, newest first. */
  get list(): Operation[] {
    this.#forget(KEPT_MAX);
    return [...this.#runs.values()].reverse().map(({ view }) => view);
  }

  /** One of them. Throws ApiError if there is none of that name, or none any more. */
  get(id: string): Operation {
    this.#forget(KEPT_MAX);
    const run = this.#runs.get(id);
    if (run) return run.view;
    const detail = `there is no operation ${id}: those that have ended are kept for ${KEPT_MS / 60_000} minutes`;
    throw new ApiError(404, detail, "id", "unknown-operation");
  }

  /** Forgets what ended long ago, and of the rest what is more than `most`, if it has ended. */
  #forget(most: number): void {
    const nowMs = performance.now();
    for (const [id, { endedMs }] of this.#runs) {
      if (endedMs !== undefined && (this.#runs.size > most || nowMs - endedMs > KEPT_MS)) this.#runs.delete(id);
    }
  }
}

/** An operation's result, or that it is not there after `ms` milliseconds; throws the operation's failure. */
async function resultWithin(run: Run, ms: number): Promise<VfMode | "late"> {
  if (ms === 0) return "late";
  const late = Promise.withResolvers<"late">();
  const timer = setTimeout(() => late.resolve("late"), ms);
  return await Promise.race([run.result, late.promise]).finally(() => clearTimeout(timer));
}

/** Answers with an operation's result, its problem, or, if it takes longer than is waited for, how far it is. */
export async function answerOperation(c: Context, run: Run) {
  const { ms, applied } = readPrefer(c.req.header("prefer"));
  const first = await resultWithin(run, ms);
  const prefers = first === "late" ? applied.running : applied.done;
  if (prefers !== "") c.header("preference-applied", prefers);
  if (first !== "late") return c.json(first, 200);
  c.header("location", `/api/v1/operations/${run.id}`);
  c.header("retry-after", "1");
  return c.json(run.view, 202);
}

const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
const textHeader = (description: string) => ({ description, schema: { type: "string" as const } });
export const preferenceApplied = { "Preference-Applied": textHeader("The preferences of Prefer that were kept") };

/** What the document of a route says of `Prefer`. */
export const preferParameter = {
  name: "Prefer",
  in: "header" as const,
  description: "`respond-async`: answer at once, or after `wait=N` seconds, with 202 and where the operation is. " +
    "`wait=N` alone: how long the result is waited for; 10 seconds if nothing is said",
  schema: { type: "string" as const },
  example: "respond-async, wait=1",
};

/** What the document of a route that changes a policy says of `Prefer`. */
export const preferMinimalParameter = {
  name: "Prefer",
  in: "header" as const,
  description:
    "`return=minimal`: answer 204 as soon as the change is in force, without asking what the VF looks like now",
  schema: { type: "string" as const },
  example: RETURN_MINIMAL,
};

/** The answers of a route that starts an operation: its result with 200, and what 202 says. */
export const operationAnswers = <T extends z.ZodType>(schema: T, description: string) => ({
  200: { ...json(schema, description), headers: preferenceApplied },
  202: {
    ...json(Operation, "It goes on: how far it is"),
    headers: {
      Location: textHeader("Where the operation is"),
      "Retry-After": textHeader("Seconds after which to look again"),
      ...preferenceApplied,
    },
  },
});

/** The routes on which operations are looked at. */
export const operationRoutes = {
  listOperations: createRoute({
    method: "get",
    path: "/api/v1/operations",
    description: "The latest operations, newest first. Those that have ended are forgotten after some minutes",
    responses: { 200: json(z.array(Operation), "The operations") },
  }),
  getOperation: createRoute({
    method: "get",
    path: "/api/v1/operations/{id}",
    description: "How far an operation is, its result, or the problem that it ended with",
    request: { params: z.object({ id: z.string().max(64) }) },
    responses: {
      200: json(Operation, "The operation"),
      404: {
        content: { "application/problem+json": { schema: Problem } },
        description: "There is no such operation, or not any more",
      },
    },
  }),
};
