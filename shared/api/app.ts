/** The frame of every service's HTTP API: its token, the limits of bodies, and how refusals are answered. */
import { type Hook, OpenAPIHono } from "@hono/zod-openapi";
import type { Context, Env, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { methodNotAllowed } from "hono/method-not-allowed";
import { requestId } from "hono/request-id";
import type { Access } from "./access.ts";
import { type AlsoGood, browserRules, checkHost, checkOrigin, checkToken } from "./guard.ts";
import { forRequest, log } from "./log.ts";
import { ApiError, faults, fieldErrors, problem } from "./problem.ts";

/** Longest id of a request that is taken from its sender (X-Request-Id). */
const REQUEST_ID_MAX = 64;
/** How long a request's body may take to come. */
const BODY_MS_MAX = 30_000;
/** Longest request body. */
export const BODY_BYTES_MAX = 64 * 1024;

const hook: Hook<unknown, Env, string, unknown> = (result, c) => {
  if (result.success) return;
  const errors = fieldErrors(result.error);
  const [first] = errors;
  const isPath = (result as { target?: string }).target === "param";
  return problem(c, isPath ? 404 : 422, faults(result.error), { field: first?.field, errors });
};

/** Limits of request bodies. */
export interface BodyLimits {
  /** Longest JSON body. */
  jsonBytesMax?: number;
  /** Longest body of another kind (an image); 0: none is taken. */
  binaryBytesMax?: number;
  /** How long a body may take to come, in milliseconds. */
  bodyMsMax?: number;
  /** Paths whose routes read their bodies while they come, and keep to limits of their own. */
  streamed?: readonly string[];
}

/** Refuses bodies that are too long, of another type, empty or not JSON, before a route sees them. */
const checkBody = (
  { jsonBytesMax = BODY_BYTES_MAX, binaryBytesMax = 0, bodyMsMax = BODY_MS_MAX, streamed = [] }: BodyLimits,
): MiddlewareHandler =>
async (c, next) => {
  if (!["POST", "PUT", "PATCH"].includes(c.req.method) || streamed.includes(c.req.path)) return await next();
  const isImage = binaryBytesMax > 0 &&
    /^application\/(wasm|octet-stream)\b/i.test(c.req.header("content-type") ?? "");
  const bytesMax = isImage ? binaryBytesMax : jsonBytesMax;
  const declared = Number(c.req.header("content-length") ?? 0);
  const bytes = declared > bytesMax ? undefined : await readLimited(c.req.raw.body, bytesMax, bodyMsMax);
  if (!bytes) {
    const reason = isImage ? "too-large" : undefined;
    return problem(c, 413, `the body is larger than ${bytesMax} bytes`, { field: "body", reason });
  }
  if (isImage) {
    c.req.bodyCache.arrayBuffer = Promise.resolve(bytes.buffer) as unknown as ArrayBuffer;
    return await next();
  }
  const type = c.req.header("content-type") ?? "";
  if (!/^application\/([\w.-]+\+)?json\b/i.test(type)) {
    return problem(c, 415, "the body must be JSON: send it with content-type: application/json", {
      field: "content-type",
    });
  }
  const text = new TextDecoder().decode(bytes);
  if (text.trim() === "") return problem(c, 400, "the body is empty: send a JSON object", { field: "body" });
  try {
    JSON.parse(text);
  } catch (error) {
    return problem(c, 400, `the body is not JSON: ${(error as Error).message}`, { field: "body" });
  }
  // Hono keeps promises here, whatever its types say.
  c.req.bodyCache.text = Promise.resolve(text) as unknown as string;
  return await next();
};

async function readLimited(
  body: ReadableStream<Uint8Array> | null,
  bytesMax: number,
  bodyMsMax: number,
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  const reader = body?.getReader();
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    reader?.cancel().catch(() => {});
  }, bodyMsMax);
  try {
    for (let part = await reader?.read(); part && !part.done; part = await reader?.read()) {
      length += part.value.length;
      if (length > bytesMax) {
        reader?.cancel().catch(() => {});
        return undefined;
      }
      chunks.push(part.value);
    }
  } catch {
    throw new ApiError(400, "the body ended before it was whole", "body");
  } finally {
    clearTimeout(timer);
  }
  if (isLate) throw new ApiError(408, `the body did not come within ${bodyMsMax / 1000} s`, "body");
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** What an app is made with, beside its routes. */
export interface AppOptions extends BodyLimits {
  /** Tokens that are good on some paths only. */
  alsoGood?: AlsoGood;
}

/** A Hono app with the rules above. `access`: which tokens are good; without it every request is. */
export function createApp(access: Access | undefined, options: AppOptions = {}): OpenAPIHono {
  const app = new OpenAPIHono({ defaultHook: hook });
  app.use(requestId({ limitLength: REQUEST_ID_MAX, generator: () => crypto.randomUUID().slice(0, 8) }));
  app.use((c, next) => forRequest(c.get("requestId"), next));
  app.use(browserRules, checkHost, checkOrigin);
  app.use(methodNotAllowed({ app, onMethodNotAllowed: (c, methods) => refuseMethod(c, methods) }));
  if (access) app.use(checkToken(access, options.alsoGood ?? (() => false)));
  app.use(checkBody(options));
  app.notFound((c) => problem(c, 404, `there is nothing at ${c.req.method} ${c.req.path}`));
  app.onError((error, c) => {
    if (error instanceof ApiError) return problem(c, error.status, error.message, error);
    if (error instanceof HTTPException) return problem(c, error.status, error.message);
    log("error", "api", error.stack ?? error.message);
    return problem(c, 500, error.message);
  });
  app.get("/healthz", (c) => c.json({ ok: true }));
  app.get("/favicon.ico", (c) => c.body(null, 204));
  return app;
}

function refuseMethod(c: Context, methods: readonly string[]): Response {
  c.header("allow", methods.join(", "));
  return problem(c, 405, `${c.req.method} is not for ${c.req.path}: ${methods.join(", ")} are`);
}
