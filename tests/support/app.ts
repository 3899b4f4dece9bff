/** A service's API without a socket: requests go to the app itself. */
import type { Problem } from "../../shared/api/mod.ts";

/** What a test needs of an app. */
interface App {
  request(path: string, init: RequestInit): Response | Promise<Response>;
}

/** An answer; what is read of its body is up to the test. */
export interface Answer<T> {
  status: number;
  body: T;
}

/** What is said to whoever is refused, in a line: `409 mac (mac-fixed): vf 0 may not …`. */
export function refusalOf({ status, body }: Answer<Problem>): string {
  const { field, reason, detail } = body;
  return [String(status), field, reason && `(${reason})`].filter((part) => part).join(" ") + `: ${detail}`;
}

/** Asks an app; `body` is sent as JSON, or as it is if it is text or bytes. */
export async function ask<T = Problem>(
  app: App,
  method: string,
  path: string,
  body?: unknown,
  more: Record<string, string> = {},
): Promise<Answer<T>> {
  const isRaw = typeof body === "string" || body instanceof Uint8Array;
  const response = await app.request(path, {
    method,
    headers: more,
    ...(body === undefined ? {} : {
      headers: { "content-type": body instanceof Uint8Array ? "application/wasm" : "application/json", ...more },
      body: isRaw ? body as BodyInit : JSON.stringify(body),
    }),
  });
  const text = await response.text();
  return { status: response.status, body: (text === "" ? undefined : JSON.parse(text)) as T };
}
