/** The token of test fabrics: `up` takes it from the environment, and so does whoever asks. */

/** Good for everything in a test's fabric. */
export const TEST_TOKEN = "a-token-for-tests";
Deno.env.set("RINGFABRIC_TOKEN", TEST_TOKEN);

/** As `fetch`, with the token; the result of an operation is waited for. */
export function authorized(url: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  if (init.method === "PUT") headers.set("prefer", "wait=60");
  headers.set("authorization", `Bearer ${TEST_TOKEN}`);
  return fetch(url, { ...init, headers });
}
