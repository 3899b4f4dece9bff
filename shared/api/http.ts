/**
 * What every service's HTTP API shares: errors as RFC 9457 problem documents that name the field, a body limit, the
 * rule for where a service may listen, and the server itself.
 */
import { type Hook, OpenAPIHono, z } from "@hono/zod-openapi";
import type { Context, Env, MiddlewareHandler } from "hono";
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";

/** Longest request body. */
export const BODY_BYTES_MAX = 64 * 1024;

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
  404: "Not found",
  405: "Method not allowed",
  409: "Conflict",
  413: "Body too large",
  415: "Unsupported media type",
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

/** A problem document as a response. */
export function problem(
  c: Context,
  status: ContentfulStatusCode,
  detail: string,
  field?: string,
  errors?: Problem["errors"],
  reason?: string,
): Response {
  const body: Problem = {
    type: "about:blank",
    title: TITLES[status] ?? "Error",
    status,
    detail,
    ...(field === undefined ? {} : { field }),
    ...(reason === undefined ? {} : { reason }),
    ...(errors ? { errors } : {}),
  };
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

const hook: Hook<unknown, Env, string, unknown> = (result, c) => {
  if (result.success) return;
  const errors = fieldErrors(result.error);
  const [first] = errors;
  const isPath = (result as { target?: string }).target === "param";
  const detail = errors.map(({ field, detail }) => `${field}: ${detail}`).join("; ");
  return problem(c, isPath ? 404 : 422, detail, first?.field, errors);
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
    const tooLarge = `the body is larger than ${bytesMax} bytes`;
    if (declared > bytesMax) return problem(c, 413, tooLarge, "body", undefined, isImage ? "too-large" : undefined);
    const bytes = await readLimited(c.req.raw.body, bytesMax);
    if (!bytes) return problem(c, 413, tooLarge, "body", undefined, isImage ? "too-large" : undefined);
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
      return problem(c, 415, "the body must be JSON: send it with content-type: application/json", "content-type");
    }
    const text = new TextDecoder().decode(bytes);
    if (text.trim() === "") return problem(c, 400, "the body is empty: send a JSON object", "body");
    try {
      JSON.parse(text);
    } catch (error) {
      return problem(c, 400, `the body is not JSON: ${(error as Error).message}`, "body");
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
      return problem(c, error.status, error.message, error.field, undefined, error.reason);
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
    return problem(c, 401, "send the fabric's token: authorization: Bearer $RINGFABRIC_TOKEN", "authorization");
  };
}

/** Compares without telling by time how much is right. */
async function sameText(a: string, b: string): Promise<boolean> {
  const digest = async (text: string) =>
    new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  const [x, y] = await Promise.all([digest(a), digest(b)]);
  return x.every((byte, i) => byte === y[i]);
}

/** Where a service listens. */
export interface ListenAddress {
  hostname: string;
  port: number;
}

/** Reads `host:port`, `[v6]:port` or `port`. */
export function parseListen(text: string): ListenAddress {
  const match = /^(?:(\[[^\]]+\]|[^:]*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (!match || port > 65535) throw new Error(`Cannot listen on ${text}: say HOST:PORT, such as 127.0.0.1:8080`);
  return { hostname: match[1]?.replace(/^\[|\]$/g, "") || "127.0.0.1", port };
}

function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

/** The token that protects an API: needed anywhere but on loopback. Throws if it is missing. */
export function requireToken(address: ListenAddress): string | undefined {
  const token = Deno.env.get("RINGFABRIC_TOKEN") || undefined;
  if (token === undefined && !isLoopback(address.hostname)) {
    throw new Error(
      `Cannot listen on ${address.hostname}: outside loopback the API needs a token; set RINGFABRIC_TOKEN`,
    );
  }
  return token;
}

/** The URL of a listening address. */
export function urlOf({ hostname, port }: ListenAddress): string {
  return `http://${hostname.includes(":") ? `[${hostname}]` : hostname}:${port}`;
}

/** Serves an app; throws one clear sentence if the port is taken. */
export function serve(app: OpenAPIHono, address: ListenAddress): Deno.HttpServer<Deno.NetAddr> {
  try {
    return Deno.serve({ ...address, onListen: () => {} }, app.fetch);
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      throw new Error(
        `Cannot listen on ${address.hostname}:${address.port}: the port is in use; choose another one (--port, --listen)`,
        { cause: error },
      );
    }
    throw error;
  }
}

/** Text that somebody else has written, as it can be shown: short, and without what a terminal would obey. */
export function showable(text: string, charactersMax: number): string {
  return text.slice(0, charactersMax).replaceAll(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu, "?");
}

/** What of a refusal is passed on. */
const Refusal = z.object({
  detail: z.string().transform((text) => showable(text, 1000)).optional(),
  field: z.string().transform((text) => showable(text, 100)).optional(),
  reason: z.string().regex(/^[a-z-]{1,40}$/).optional().catch(undefined),
});

/** The largest answer of a service. */
const ANSWER_BYTES_MAX = 4 << 20;

/** How long an answer may take, and how long it may be. */
export interface PeerLimits {
  timeoutMs?: number;
  answerBytesMax?: number;
}

/** The body of an answer, if it is not larger than it may be. */
async function limitedText(response: Response, bytesMax: number): Promise<string> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > bytesMax) throw new Error(`its answer is larger than ${bytesMax} bytes`);
    parts.push(part);
  }
  return await new Blob(parts).text();
}

/** Another service's API, as a service sees it. */
export class Peer {
  readonly url: string;
  readonly #name: string;
  readonly #token: string | undefined;
  readonly #timeoutMs: number;
  readonly #answerBytesMax: number;

  constructor(name: string, url: string, token: string | undefined, limits: PeerLimits = {}) {
    this.url = url;
    this.#name = name;
    this.#token = token;
    this.#timeoutMs = limits.timeoutMs ?? 15_000;
    this.#answerBytesMax = limits.answerBytesMax ?? ANSWER_BYTES_MAX;
  }

  /** Asks it; throws ApiError with its own words if it refuses, and 503 if it does not answer in time. */
  async ask<T = unknown>(method: string, path: string, body?: unknown, timeoutMs = this.#timeoutMs): Promise<T> {
    const image = body instanceof Uint8Array;
    const type = body === undefined ? {} : { "content-type": image ? "application/wasm" : "application/json" };
    let response: Response;
    let answer: unknown;
    try {
      response = await fetch(this.url + path, {
        method,
        headers: { ...type, ...(this.#token ? { authorization: `Bearer ${this.#token}` } : {}) },
        body: body === undefined ? null : image ? body as Uint8Array<ArrayBuffer> : JSON.stringify(body),
        signal: AbortSignal.timeout(timeoutMs),
        redirect: "error",
      });
      answer = JSON.parse(await limitedText(response, this.#answerBytesMax));
    } catch (error) {
      const said = (error as Error).message.split("\n")[0];
      throw new ApiError(503, `${this.#name} at ${this.url} does not answer (${said})`, undefined, "unreachable");
    }
    if (response.ok) return answer as T;
    const refusal = Refusal.safeParse(answer).data;
    const { detail, field, reason } = refusal ?? {};
    const status = [404, 409, 413, 422].includes(response.status) ? response.status : 503;
    throw new ApiError(status as ContentfulStatusCode, `${this.#name}: ${detail ?? response.status}`, field, reason);
  }
}
