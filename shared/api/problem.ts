/** Refusals: RFC 9457 problem documents, which name the field of the request that is at fault. */
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";

/** Which mode a VF has after a change that failed. */
export const InForce = z.object({
  mode: z.enum(["emulated", "passthrough"]),
  plugin: z.string().optional(),
  version: z.string().optional(),
  dataPath: z.enum(["copy", "zerocopy", "headersplit"]).optional(),
}).nullable().openapi("InForce", {
  description: "After a change of mode that failed: the mode that is in force now; null: nobody could say",
});
export type InForce = z.output<typeof InForce>;

/** An RFC 9457 problem document. `field` names the field of the request that is at fault. */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  field: z.string().optional(),
  reason: z.string().optional().openapi({ description: "A name for what is wrong, for programs" }),
  errors: z.array(z.object({ field: z.string(), detail: z.string() })).optional(),
  inForce: InForce.optional(),
}).openapi("Problem");
export type Problem = z.output<typeof Problem>;

const TITLES: Record<number, string> = {
  400: "Bad request",
  401: "Not authorised",
  403: "Forbidden",
  404: "Not found",
  405: "Method not allowed",
  408: "Request timeout",
  409: "Conflict",
  412: "Precondition failed",
  413: "Body too large",
  415: "Unsupported media type",
  421: "Misdirected request",
  422: "Not acceptable values",
  429: "Too many",
  500: "Internal error",
  503: "Not ready",
};

/** A refusal of a request, with its HTTP status and the field at fault. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: ContentfulStatusCode;
  readonly field: string | undefined;
  /** A name for what is wrong, for programs. */
  readonly reason: string | undefined;
  /** After a change of mode: what is in force now. */
  readonly inForce: InForce | undefined;

  constructor(status: ContentfulStatusCode, detail: string, field?: string, reason?: string, inForce?: InForce) {
    super(detail);
    this.status = status;
    this.field = field;
    this.reason = reason;
    this.inForce = inForce;
  }
}

/** What a problem document may say beside its sentence: the field, a name for programs, and everything that is wrong. */
export type ProblemParts = Partial<Pick<Problem, "field" | "reason" | "errors" | "inForce">>;

/** A problem document. */
export function problemDocument(status: number, detail: string, parts: ProblemParts = {}): Problem {
  const { field, reason, errors, inForce } = parts;
  return {
    type: "about:blank",
    title: TITLES[status] ?? "Error",
    status,
    detail,
    ...(field === undefined ? {} : { field }),
    ...(reason === undefined ? {} : { reason }),
    ...(errors ? { errors } : {}),
    ...(inForce === undefined ? {} : { inForce }),
  };
}

/** A problem document as a response. */
export function problem(c: Context, status: ContentfulStatusCode, detail: string, parts: ProblemParts = {}): Response {
  const body = problemDocument(status, detail, parts);
  if (status === 401) c.header("www-authenticate", 'Bearer realm="ringfabric"');
  return c.body(JSON.stringify(body), status, { "content-type": "application/problem+json" });
}

/** One {field, detail} for each thing a schema found wrong; of one field what is said first. */
export function fieldErrors(error: z.core.$ZodError): { field: string; detail: string }[] {
  const errors = error.issues.flatMap((issue) => {
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => ({
        field: [...issue.path, key].join("."),
        detail: "is not a field that can be set",
      }));
    }
    return [{ field: issue.path.join(".") || "body", detail: detailOf(issue) }];
  });
  return errors.filter(({ field }, at) => errors.findIndex((one) => one.field === field) === at);
}

/** Everything that a schema found wrong, in one line whatever was sent. */
export function faults(error: z.core.$ZodError): string {
  return fieldErrors(error).map(({ field, detail }) => `${field}: ${detail}`).join("; ").replaceAll(/\p{Cc}/gu, "?");
}

const KINDS: Record<string, string> = {
  object: "an object",
  record: "an object",
  array: "a list",
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
};

/** What a schema says, or what zod says by itself in words that fit behind a field's name. */
function detailOf(issue: z.core.$ZodIssue): string {
  if (!issue.message.startsWith("Invalid ")) return issue.message;
  if (issue.code === "invalid_type") return `must be ${KINDS[issue.expected] ?? issue.expected}`;
  if (issue.code === "invalid_value") return `is ${issue.values.join(" or ")}`;
  return issue.message;
}
