/** Where a service listens, who may ask it, and the server itself. */
import type { OpenAPIHono } from "@hono/zod-openapi";
import type { Command } from "commander";
import { Access } from "./access.ts";
import { endStreams } from "./sse.ts";

/** How long what is being answered may take when a service ends. */
const LAST_ANSWERS_MS = 500;

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

/** Whether only this machine reaches an address. */
export function isLoopback(hostname: string): boolean {
  return hostname === "localhost" || hostname === "::1" || /^127(\.\d{1,3}){3}$/.test(hostname);
}

/** How a service is told who may ask it: options that every service has. */
export interface AccessOptions {
  listen: ListenAddress;
  /** Where the hashes of good tokens are. */
  access?: string;
  /** False: everybody may ask everything. */
  token: boolean;
}

/**
 * Which tokens are good: those of the file of `--access`, and RINGFABRIC_TOKEN. `undefined`: all requests are
 * (`--no-token`). Throws if nothing says so: an API without a token is anybody's, on loopback too.
 */
export function accessOf({ access: file, token: isAsked, listen }: AccessOptions): Access | undefined {
  if (!isAsked) {
    if (isLoopback(listen.hostname)) return undefined;
    throw new Error(`Cannot serve ${listen.hostname} with --no-token: that is for loopback; leave one of them out`);
  }
  const token = Deno.env.get("RINGFABRIC_TOKEN") || undefined;
  if (file === undefined && token === undefined) {
    throw new Error("Cannot serve an API without a token: set RINGFABRIC_TOKEN, or say --no-token to let everybody in");
  }
  return new Access({ file, token });
}

/** The token that a service shows to the others. */
export function ownToken(): string | undefined {
  return Deno.env.get("RINGFABRIC_SERVICE_TOKEN") || Deno.env.get("RINGFABRIC_TOKEN") || undefined;
}

/** Adds the options by which a service is told who may ask it. */
export function accessCommand(command: Command): Command {
  return command
    .option("--access <file>", "hashes of good tokens, as up writes them; RINGFABRIC_TOKEN is good too")
    .option("--no-token", "let everybody in who reaches the API");
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
    const why = error instanceof Deno.errors.AddrInUse
      ? "the port is in use; choose another one (--port, --listen)"
      : `${
        (error as Error).message.replace(/ \(os error \d+\)$/, "")
      }; say an address of this machine (--host, --listen)`;
    throw new Error(`Cannot listen on ${address.hostname}:${address.port}: ${why}`, { cause: error });
  }
}

/** Takes no more requests, ends streams of events, and has a moment for what is being answered. */
export async function stopServing(server: Pick<Deno.HttpServer, "shutdown">): Promise<void> {
  const answered = server.shutdown();
  endStreams();
  await Promise.race([answered, new Promise((resolve) => setTimeout(resolve, LAST_ANSWERS_MS))]);
}
