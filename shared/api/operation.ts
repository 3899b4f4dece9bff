/**
 * Operations: what may take longer than an answer should is a resource with its progress, its result, or the problem
 * that it ended with. Who asks says how long the answer may take (Prefer, RFC 7240).
 */
import { z } from "@hono/zod-openapi";
import { ModeStep, VfMode } from "./mode.ts";
import { Problem } from "./problem.ts";

/** Header with which the PF says what an operation is called, so that it can ask about it without an answer. */
export const OPERATION_HEADER = "x-operation-id";
export const OperationId = z.uuid();

/** How long an answer is waited for if nothing is said, in milliseconds. */
const WAIT_MS = 10_000;
const WAIT_SECONDS_MAX = 60;

/** Something that takes its time: a change of mode. */
export const Operation = z.object({
  id: z.string(),
  what: z.string().openapi({ example: "vf 0 to passthrough" }),
  state: z.enum(["running", "done", "failed"]),
  steps: z.array(ModeStep).openapi({ description: "The steps that have ended so far" }),
  now: z.string().optional().openapi({ description: "The step that is under way" }),
  result: VfMode.optional().openapi({ description: "When it is done: what would have been answered" }),
  problem: Problem.optional().openapi({ description: "When it has failed: what would have been answered" }),
  startedAt: z.iso.datetime(),
  endedAt: z.iso.datetime().optional(),
}).openapi("Operation");
export type Operation = z.output<typeof Operation>;

/** Whether an answer is an operation that goes on, and not yet its result. */
export function isOperation(answer: VfMode | Operation): answer is Operation {
  return "state" in answer;
}

/** How long whoever asks waits for the result. */
export interface Wait {
  ms: number;
  /** The preferences that were said and are kept, for Preference-Applied: with the result, and without it. */
  applied: { done: string; running: string };
}

/** What of a Prefer header says that an answer need not show what has come of a change: RFC 7240, section 4.2. */
export const RETURN_MINIMAL = "return=minimal";

/** Whether a Prefer header says that. */
export function prefersMinimal(header = ""): boolean {
  return header.split(",").some((part) => /^\s*return\s*=\s*"?minimal"?\s*(;.*)?$/i.test(part));
}

/**
 * Reads a Prefer header: `respond-async` is answered at once, or after `wait=N` seconds; `wait=N` alone is how long the
 * result is waited for. What it says beside that is for others.
 */
export function readPrefer(header = ""): Wait {
  const said = new Map<string, string>();
  for (const part of header.split(",")) {
    const [, name = "", value = ""] = /^\s*([\w-]+)\s*(?:=\s*"?(\w*)"?)?\s*(?:;.*)?$/.exec(part) ?? [];
    if (!said.has(name.toLowerCase())) said.set(name.toLowerCase(), value);
  }
  const isAsync = said.has("respond-async");
  const wait = /^\d{1,9}$/.test(said.get("wait") ?? "") ? Number(said.get("wait")) : undefined;
  const seconds = wait === undefined ? undefined : Math.min(wait, WAIT_SECONDS_MAX);
  const done = seconds === undefined ? "" : `wait=${seconds}`;
  return {
    ms: seconds === undefined ? isAsync ? 0 : WAIT_MS : seconds * 1000,
    applied: { done, running: [isAsync ? "respond-async" : "", done].filter((text) => text !== "").join(", ") },
  };
}
