/** The frame of every service's HTTP API: its token, the limits of bodies, and how refusals are answered. */
import { type Hook, OpenAPIHono } from "@hono/zod-openapi";
import type { Env, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import { ApiError, fieldErrors, problem } from "./problem.ts";

/** Longest request body. */
export const BODY_BYTES_MAX = 64 * 1024;

const hook: Hook<unknown, Env, string, unknown> = (result, c) => {
  if (result.success) return;
  const errors = fieldErrors(result.error);
  const [first] = errors;
  const isPath = (result as { target?: string }).target === "param";
  const detail = errors.map(({ field, detail }) => `${field}: ${detail}`).join("; ");
  return problem(c, isPath ? 404 : 422, detail, { field: first?.field, errors });
};

/** Limits of request bodies. */
export interface BodyLimits {
  /** Longest JSON body. */
  jsonBytesMax?: number;
  /** Longest body of another kind (an image); 0: none is taken. */
  binaryBytesMax?: number;
}

/** Refuses bodies that are too long, of another type, empty or not JSON, before a route sees them. */
const checkBody =
  ({ jsonBytesMax = BODY_BYTES_MAX, binaryBytesMax = 0 }: BodyLimits): MiddlewareHandler => async (c, next) => {
    if (!["POST", "PUT", "PATCH"].includes(c.req.method)) return await next();
    const isImage = binaryBytesMax > 0 &&
      /^application\/(wasm|octet-stream)\b/i.test(c.req.header("content-type") ?? "");
    const bytesMax = isImage ? binaryBytesMax : jsonBytesMax;
    const declared = Number(c.req.header("content-length") ?? 0);
    const bytes = declared > bytesMax ? undefined : await readLimited(c.req.raw.body, bytesMax);
    if (!bytes) {
      const reason = isImage ? "too-large" : undefined;
      return problem(c, 413, `the body is larger than ${bytesMax} bytes`, { field: "body", reason });
    }
    if (isImage) {
      c.req.bodyCache.arrayBuffer = Promise.resolve(bytes.buffer) as unknown as ArrayBuffer;
      return await next();
    }
    // An order without particulars needs no body.
    if (bytes.length === 0 && c.req.header("content-type") === undefined && c.req.method === "POST") {
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
): Promise<Uint8Array<ArrayBuffer> | undefined> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of body ?? []) {
    length += chunk.length;
    if (length > bytesMax) return undefined;
    chunks.push(chunk);
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** A Hono app with the rules above; `token`, if given, is asked of everything but the health checks. */
export function createApp(
  token: string | undefined,
  limits: BodyLimits = {},
  alsoGood: (path: string) => string | undefined = () => undefined,
): OpenAPIHono {
  const app = new OpenAPIHono({ defaultHook: hook });
  app.use(bearer(token, alsoGood));
  app.use(checkBody(limits));
  app.notFound((c) => problem(c, 404, `there is nothing at ${c.req.method} ${c.req.path}`));
  app.onError((error, c) => {
    if (error instanceof ApiError) {
      return problem(c, error.status, error.message, error);
    }
    if (error instanceof HTTPException) return problem(c, error.status, error.message);
    console.error(error);
    return problem(c, 500, error.message);
  });
  app.get("/healthz", (c) => c.json({ ok: true }));
  return app;
}

function bearer(token: string | undefined, alsoGood: (path: string) => string | undefined): MiddlewareHandler {
  return async (c, next) => {
    const sent = c.req.header("authorization") ?? "";
    const open = token === undefined || c.req.path === "/healthz" || c.req.path === "/readyz";
    if (open || (await sameText(sent, `Bearer ${token}`))) return await next();
    const other = alsoGood(c.req.path);
    if (other !== undefined && await sameText(sent, `Bearer ${other}`)) return await next();
    return problem(c, 401, "send the fabric's token: authorization: Bearer $RINGFABRIC_TOKEN", {
      field: "authorization",
    });
  };
}

/** Compares without telling by time how much is right. */
async function sameText(a: string, b: string): Promise<boolean> {
  const digest = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  const [x, y] = await Promise.all([digest(a), digest(b)]);
  return x.every((byte, i) => byte === y[i]);
}
