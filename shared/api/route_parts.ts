/** Parts of the PF's routes: bodies, refusals, the number in a path. */
import { z } from "@hono/zod-openapi";
import { Problem } from "./problem.ts";

/** A body of JSON. */
export const json = <T extends z.ZodType>(schema: T, description: string) => ({
  content: { "application/json": { schema } },
  description,
});
/** A refusal. */
export const problemBody = (description: string) => ({
  content: { "application/problem+json": { schema: Problem } },
  description,
});
/** A request's body, which has to be there. */
export const body = <T extends z.ZodType>(schema: T, description: string) => ({
  body: { ...json(schema, description), required: true as const },
});
/** What every change of the fabric may be refused with. */
export const errors = {
  400: problemBody("The body is not JSON"),
  404: problemBody("There is no such VF or vport"),
  409: problemBody("It conflicts with something else"),
  412: problemBody("The policy is not the one of If-Match any more"),
  422: problemBody("A field is not acceptable; it is named"),
  503: problemBody("The NIC is not reachable; nothing was changed"),
};

/** The number in a path. */
export const params = z.object({
  id: z.string().regex(/^\d{1,9}$/, "is the number of a VF or vport").transform(Number).openapi({ type: "integer" }),
});
