/** Other services' HTTP, as a test plays it: what this thread fetches goes to a function of the test. */

/** A request as it went out. */
export interface Asked {
  method: string;
  path: string;
  headers: Headers;
  /** JSON, or the number of bytes of an image. */
  body: unknown;
}

/** What is answered: a body as JSON, a text as it is, a whole response, or nothing for as long as anybody listens. */
export type Reply = Record<string, unknown> | unknown[] | string | number | null | Response | "silence" | undefined;

/** In force until it is disposed of. */
export class FakeFetch implements Disposable {
  /** Everything that was asked, in order. */
  readonly asked: Asked[] = [];
  /** The answer to each request; `{}` where it says nothing. */
  answer: (asked: Asked) => Reply | Promise<Reply> = () => undefined;
  readonly #real = globalThis.fetch;

  constructor() {
    globalThis.fetch = (input, init) => this.#fetch(String(input), init ?? {});
  }

  /** What was asked of a path, in order. */
  to(path: string): Asked[] {
    return this.asked.filter((asked) => asked.path === path);
  }

  async #fetch(url: string, init: RequestInit): Promise<Response> {
    const body = init.body instanceof Uint8Array ? init.body.length : JSON.parse(String(init.body ?? "null"));
    const { method = "GET" } = init;
    const asked = { method, path: new URL(url).pathname, headers: new Headers(init.headers), body };
    this.asked.push(asked);
    const aborted = new Promise<never>((_, reject) => {
      init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
    });
    const reply = await Promise.race([this.answer(asked), aborted]) ?? {};
    if (reply === "silence") return await aborted;
    const response = reply instanceof Response
      ? reply
      : new Response(typeof reply === "string" ? reply : JSON.stringify(reply));
    // As the platform does.
    if (response.status >= 300 && response.status < 400 && init.redirect === "error") throw new TypeError("a redirect");
    return response;
  }

  [Symbol.dispose](): void {
    globalThis.fetch = this.#real;
  }
}
