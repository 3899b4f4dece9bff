/** Server-sent events (WHATWG HTML §9.2): how services tell what happens, and how they listen to each other. */
import type { Context } from "hono";
import { type SSEStreamingApi, streamSSE } from "hono/streaming";
import { Places } from "./places.ts";
import { Problem } from "./problem.ts";
import { showable } from "./showable.ts";

const HEARTBEAT_MS = 2000;
/** A stream that says nothing for two beats has nobody at its other end, whatever its connection says. */
const SILENCE_MS = 2 * HEARTBEAT_MS + 500;
/**
 * What a listener that does not read may have waiting, in characters, before it is cut off: it comes back if it lives. The
 * longest that is said at once, the live document of a full fabric with a long list of VLANs on each port, is less.
 */
const BACKLOG_CHARACTERS_MAX = 8 * 1024 ** 2;

/** Characters of a refusal that are shown. */
const SAID_MAX = 500;

/** Listeners of one service at a time, beside the fabric's own services. */
const listeners = new Places({ all: 128, perVf: 8, allVfs: 96, what: "listeners" });

/** What ends each stream that is open in this process. */
const streams = new Set<() => void>();

/** Ends all streams: their listeners come back when another process serves them. */
export function endStreams(): void {
  for (const end of streams) end();
}

/** Whom events are told, each with the id by which a listener that comes back says what it has heard. */
export type Listener<E> = (event: E, id?: string) => void;

/** Has frames sent until the returned function is called. */
type Subscribe = (send: (frame: string) => void) => () => void;

/** Streams everything `subscribe` tells to one listener until it goes away. Throws ApiError if there are too many. */
export function eventStream<E>(c: Context, subscribe: (listener: Listener<E>) => () => void): Response {
  return frameStream(c, (send) => subscribe((event, id) => send(frame(event, { id }))));
}

/** One event as text: its data, and the name and id that it may have. What it says once is written to many listeners. */
export function frame(data: unknown, { event, id }: { event?: string; id?: string | undefined } = {}): string {
  const name = event === undefined ? "" : `event: ${event}\n`;
  return `${name}data: ${JSON.stringify(data)}\n${id === undefined ? "" : `id: ${id}\n`}\n`;
}

/** Sends the frames that `subscribe` gives to one listener. */
export function frameStream(c: Context, subscribe: Subscribe): Response {
  if (c.req.raw.method === "HEAD") return c.body(null, 200, { "content-type": "text/event-stream" });
  const leave = listeners.take(c);
  return streamSSE(c, async (stream) => {
    const end = () => stream.abort();
    streams.add(end);
    try {
      await tell(stream, subscribe);
    } finally {
      streams.delete(end);
      leave();
    }
  });
}

async function tell(stream: SSEStreamingApi, subscribe: Subscribe): Promise<void> {
  const backlog: string[] = [];
  let waiting = 0;
  const gone = Promise.withResolvers<undefined>();
  let wake: () => void = () => {};
  const unsubscribe = subscribe((text) => {
    backlog.push(text);
    waiting += text.length;
    if (waiting > BACKLOG_CHARACTERS_MAX) stream.abort();
    wake();
  });
  stream.onAbort(() => {
    unsubscribe();
    gone.resolve(undefined);
  });
  // A listener that does not read is not waited for once it has gone, or has too much waiting.
  const write = (step: Promise<unknown>) => Promise.race([step, gone.promise]);
  // A comment at once tells the listener that it is subscribed.
  await write(stream.write(": subscribed\n\n"));
  while (!stream.aborted) {
    const next = backlog.shift();
    if (next !== undefined) {
      waiting -= next.length;
      await write(stream.write(next));
      continue;
    }
    const { promise, resolve } = Promise.withResolvers<boolean>();
    wake = () => resolve(false);
    const timer = setTimeout(() => resolve(true), HEARTBEAT_MS);
    const isSilent = await Promise.race([promise, gone.promise]);
    clearTimeout(timer);
    if (isSilent) await write(stream.write(": alive\n\n"));
  }
  unsubscribe();
}

/**
 * Reads an event stream; ends when the connection does, and throws if the server says nothing for two heartbeats.
 * `onOpen` runs once it has answered.
 */
export async function* readEvents<E>(
  url: string,
  init: RequestInit,
  onOpen: () => void = () => {},
): AsyncGenerator<E> {
  const silence = new AbortController();
  const signal = init.signal ? AbortSignal.any([init.signal, silence.signal]) : silence.signal;
  const listen = () =>
    setTimeout(() => silence.abort(new Error(`${url} says nothing for ${SILENCE_MS / 1000} s`)), SILENCE_MS);
  let timer = listen();
  try {
    const response = await fetch(url, { ...init, signal });
    if (!response.ok || !response.body) {
      const said = Problem.safeParse(await response.json().catch(() => undefined)).data?.detail;
      throw new Error(`Cannot read events of ${url}: ${said ? showable(said, SAID_MAX) : `HTTP ${response.status}`}`);
    }
    onOpen();
    let text = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      clearTimeout(timer);
      timer = listen();
      text += chunk;
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const data = text.slice(0, end).split("\n").filter((line) => line.startsWith("data:"));
        text = text.slice(end + 2);
        if (data.length > 0) yield JSON.parse(data.map((line) => line.slice(5).trim()).join("\n")) as E;
      }
    }
  } finally {
    clearTimeout(timer);
  }
}
