/** How the page asks the API: with the token of this tab, and with the API's own words when it refuses. */

/** Kept for this tab alone, and gone with it. No other origin reads it, as one on another port could read a cookie. */
const TOKEN_KEY = "ringfabric.token";
/** A stream that says nothing for so long has nobody at its other end: the server says something each second. */
const SILENCE_MS = 4500;

/** Moves a token from the address, where it would be seen and kept, to this tab's storage. */
export function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token === null) return;
  sessionStorage.setItem(TOKEN_KEY, token);
  history.replaceState(null, "", `${location.pathname}#/`);
}

/** Keeps a token, or forgets the one there is. */
export function keepToken(token) {
  if (token === undefined) sessionStorage.removeItem(TOKEN_KEY);
  else sessionStorage.setItem(TOKEN_KEY, token);
}

/** A refusal: the problem document (RFC 9457) that the API answered. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail ?? `HTTP ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

function headers(more = {}) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  return { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...more };
}

async function send(path, init) {
  const response = await fetch(path, { ...init, headers: headers(init.headers), cache: "no-store" }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("the PF does not answer");
  });
  if (response.ok) return response;
  throw new Refusal(response.status, await response.json().catch(() => ({})));
}

/** What is at `path`. */
export async function get(path) {
  return await (await send(path, {})).json();
}

function sendBody(method, path, body, more) {
  const headers = { "content-type": "application/json", ...more };
  return send(path, { method, body: JSON.stringify(body), headers });
}

/** Changes something; answers what the API does. Throws Refusal. */
export async function change(method, path, body, more = {}) {
  return await (await sendBody(method, path, body, more)).json();
}

/** Changes a policy if it is still the one with tag `tag`; answers what it is then, and its tag. Throws Refusal. */
export async function changePolicy(path, body, tag) {
  const response = await sendBody("PATCH", path, body, tag ? { "if-match": tag } : {});
  return { value: await response.json(), tag: response.headers.get("etag") };
}

/** Events of a stream, as {event, id, data}, until it ends. Throws if it says nothing for a while. */
export async function* events(path, signal) {
  const silence = new AbortController();
  const until = AbortSignal.any([signal, silence.signal]);
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const { body } = await send(path, { signal: until });
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      text += part.value;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const fields = Object.fromEntries(
          text.slice(0, end).split("\n").map((line) => [line.split(":", 1)[0], line.replace(/^[^:]*: ?/, "")]),
        );
        text = text.slice(end + 2);
        if (fields.data !== undefined) yield { event: fields.event, id: fields.id, data: JSON.parse(fields.data) };
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
