/** Refusals: RFC 9457 problem documents, which name the field of the request that is at fault. */
import { z } from "@hono/zod-openapi";
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";

/** An RFC 9457 problem document. `field` names the field of the request that is at fault. */
export const Problem = z.object({
  type: z.string(),
  title: z.string(),
  status: z.int(),
  detail: z.string(),
  field: z.string().optional(),
  reason: z.string().optional().openapi({ description: "A name for what is wrong, for programs" }),
  errors: z.array(z.object({ field: z.string(), detail: z.string() })).optional(),
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

  constructor(status: ContentfulStatusCode, detail: string, field?: string, reason?: string) {
    super(detail);
    this.status = status;
    this.field = field;
    this.reason = reason;
  }
}

/** What a problem document may say beside its sentence: the field, a name for programs, and everything that is wrong. */
export type ProblemParts = Partial<Pick<Problem, "field" | "reason" | "errors">>;

/** A problem document as a response. */
export function problem(c: Context, status: ContentfulStatusCode, detail: string, parts: ProblemParts = {}): Response {
  const { field, reason, errors } = parts;
  const body: Problem = {
    type: "about:blank",
    title: TITLES[status] ?? "Error",
    status,
    detail,
    ...(field === undefined ? {} : { field }),
    ...(reason === undefined ? {} : { reason }),
    ...(errors ? { errors } : {}),
  };
  if (status === 401) c.header("www-authenticate", 'Bearer realm="ringfabric"');
  return c.body(JSON.stringify(body), status, { "content-type": "application/problem+json" });
}

/** One {field, detail} for each thing a schema found wrong. */
export function fieldErrors(error: z.core.$ZodError): { field: string; detail: string }[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path.join(".");
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => ({
        field: [...issue.path, key].join("."),
        detail: "is not a field that can be set",
      }));
    }
    return [{ field: path || "body", detail: issue.message }];
  });
}
