/** Another service's API, as a service that asks it sees it. */
import { z } from "@hono/zod-openapi";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { msLeft } from "./deadline.ts";
import { currentRequest } from "./log.ts";
import { ApiError, InForce } from "./problem.ts";
import { Readiness } from "./readiness.ts";
import { showable } from "./showable.ts";

/** What of a refusal is passed on. */
const Refusal = z.object({
  detail: z.string().transform((text) => showable(text, 1000)).optional(),
  field: z.string().transform((text) => showable(text, 100)).optional(),
  reason: z.string().regex(/^[a-z-]{1,40}$/).optional().catch(undefined),
  inForce: InForce.optional().catch(undefined),
});

/** No answer came, or none that could be read: whether the request has had an effect is not known. */
export class Unanswered extends ApiError {}

/** The largest answer of a service. */
const ANSWER_BYTES_MAX = 4 << 20;

const READINESS_BYTES_MAX = 4096;

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

/** An answer's JSON; whoever answers otherwise is no service of a fabric. */
function parsed(text: string, status: number): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`HTTP ${status}, and not in JSON: is it a fabric's?`);
  }
}

/** The header that shows a token, if there is one. */
export function bearer(token: string | undefined): { authorization?: string } {
  return token === undefined ? {} : { authorization: `Bearer ${token}` };
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

  #headers(type: Record<string, string>): Record<string, string> {
    const request = currentRequest();
    return {
      ...type,
      ...bearer(this.#token),
      ...(request === undefined ? {} : { "x-request-id": request }),
    };
  }

  /**
   * Asks it; throws ApiError with its own words if it refuses, and Unanswered (503) if no answer comes in time: within
   * `timeoutMs`, and within what the deadline of what is done now leaves.
   */
  async ask<T = unknown>(
    method: string,
    path: string,
    body?: unknown,
    timeoutMs = this.#timeoutMs,
    headers: Record<string, string> = {},
  ): Promise<T> {
    const image = body instanceof Uint8Array;
    const type = body === undefined ? {} : { "content-type": image ? "application/wasm" : "application/json" };
    let response: Response;
    let answer: unknown;
    try {
      response = await fetch(this.url + path, {
        method,
        headers: { ...this.#headers(type), ...headers },
        body: body === undefined ? null : image ? body as Uint8Array<ArrayBuffer> : JSON.stringify(body),
        signal: AbortSignal.timeout(Math.min(timeoutMs, msLeft())),
        redirect: "error",
      });
      const text = await limitedText(response, this.#answerBytesMax);
      answer = response.status === 204 ? undefined : parsed(text, response.status);
    } catch (error) {
      throw this.#unanswered(error);
    }
    if (response.ok) return answer as T;
    throw this.refusal(response.status, answer);
  }

  /** What its `/readyz` says; `undefined` if it does not answer. */
  async readiness(timeoutMs: number): Promise<Readiness | undefined> {
    try {
      const response = await fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(timeoutMs), redirect: "error" });
      const said = Readiness.parse(JSON.parse(await limitedText(response, READINESS_BYTES_MAX)));
      return said.reason === undefined ? said : { ...said, reason: showable(said.reason, 500) };
    } catch {
      return undefined;
    }
  }

  /** Why it is not ready, by the word of its `/readyz`, or that it does not answer; `undefined` if it is ready. */
  async unreadiness(timeoutMs: number): Promise<string | undefined> {
    const said = await this.readiness(timeoutMs);
    if (!said) return `${this.#name} does not answer`;
    return said.ready ? undefined : `${this.#name}: ${said.reason ?? "it is not ready"}`;
  }

  /** As `ask`, with GET, for an answer that goes on: its body, once it has begun. */
  async open(path: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error("it takes too long")), Math.min(this.#timeoutMs, msLeft()));
    try {
      const init = { headers: this.#headers({}), signal: late.signal, redirect: "error" } as const;
      const response = await fetch(this.url + path, init).catch((error) => {
        throw this.#unanswered(error);
      });
      if (response.ok && response.body) return response.body;
      throw this.refusal(response.status, await response.json().catch(() => undefined));
    } finally {
      clearTimeout(timer);
    }
  }

  #unanswered(error: unknown): Unanswered {
    const said = (error as Error).message.split("\n")[0];
    return new Unanswered(503, `${this.#name} at ${this.url} does not answer (${said})`, undefined, "unreachable");
  }

  /** What it has refused with a status and a problem document, as a refusal of this service. */
  refusal(said: number, document: unknown): ApiError {
    const { detail, field, reason, inForce } = Refusal.safeParse(document).data ?? {};
    const status = ([404, 409, 413, 422].includes(said) ? said : 503) as ContentfulStatusCode;
    return new ApiError(status, `${this.#name}: ${detail ?? `HTTP ${said}`}`, field, reason, inForce);
  }
}
