/** Where a service listens, the rule for where it may, and the server itself. */
import type { OpenAPIHono } from "@hono/zod-openapi";

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
