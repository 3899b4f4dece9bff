/**
 * What a request must be before a route sees it. A web page in somebody's browser can reach every port of this machine:
 * by a name that it has resolved to 127.0.0.1 (DNS rebinding), or across sites. So the host must be ours, the origin
 * must be our own, and every request but the health checks and the documentation brings a token.
 */
import { bearerAuth } from "hono/bearer-auth";
import { secureHeaders } from "hono/secure-headers";
import type { Context, MiddlewareHandler } from "hono";
import { type Access, isAllowed, type TokenEntry } from "./access.ts";
import { ApiError, problem } from "./problem.ts";

/** Readable without a token: they say nothing about this fabric. */
const OPEN_PATHS = /^\/($|healthz$|readyz$|openapi\.json$|favicon\.ico$|docs($|\/)|page\/)/;
const IPV4 = /^\d{1,3}(\.\d{1,3}){3}$/;

/**
 * Whether a request's host may be one of ours: an address, localhost, or a name without a dot, such as a container has.
 * A page can only rebind a name of its own, and such a name has a dot.
 */
function isOwnHost(hostname: string): boolean {
  return IPV4.test(hostname) || hostname.startsWith("[") || (!hostname.includes(".") && hostname !== "") ||
    (Deno.env.get("RINGFABRIC_HOSTS") ?? "").split(",").includes(hostname);
}

/** Refuses requests under another name. */
export const checkHost: MiddlewareHandler = async (c, next) => {
  const hostname = URL.parse(c.req.url)?.hostname;
  if (hostname !== undefined && isOwnHost(hostname)) return await next();
  const said = hostname ?? "a host's name";
  return problem(c, 421, `this is not ${said}: ask by address, or name it in RINGFABRIC_HOSTS`, { field: "host" });
};

/** Refuses what another site's page has a browser send. hono/csrf lets JSON from elsewhere pass, and other names. */
export const checkOrigin: MiddlewareHandler = async (c, next) => {
  const origin = c.req.header("origin");
  const isForeign = origin !== undefined && origin !== new URL(c.req.url).origin;
  const site = c.req.header("sec-fetch-site");
  const isFollowedLink = c.req.method === "GET" && c.req.header("sec-fetch-mode") === "navigate";
  if (!isForeign && (site === undefined || site === "same-origin" || site === "none" || isFollowedLink)) {
    return await next();
  }
  return problem(c, 403, "requests of other sites' pages are not served", { field: "origin" });
};

/** Headers that keep pages from embedding and running what is not theirs, and from leaving anything with others. */
const rulesFor = (styles: string[], images: string[]) =>
  secureHeaders({
    strictTransportSecurity: false,
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: styles,
      imgSrc: images,
      connectSrc: ["'self'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
      frameAncestors: ["'none'"],
    },
  });
const strictRules = rulesFor(["'self'"], ["'self'"]);
/** Swagger UI writes styles into its page, and has pictures in its style sheet. */
const documentationRules = rulesFor(["'self'", "'unsafe-inline'"], ["'self'", "data:"]);

/** The rules of what is asked for. */
export const browserRules: MiddlewareHandler = (c, next) =>
  (c.req.path === "/docs" ? documentationRules : strictRules)(c, next);

/** Tokens that are good on some paths only, such as a guest's on its own. */
export type AlsoGood = (token: string, path: string) => boolean;

/** The token that a request was let in with; none: no token is asked for, or it is good on some paths only. */
export function tokenOf(c: Context): TokenEntry | undefined {
  return (c.get as (name: string) => TokenEntry | undefined)("token");
}

/** Asks for a token that is good for the request. */
export function checkToken(access: Access, alsoGood: AlsoGood): MiddlewareHandler {
  const missing = () => {
    throw new ApiError(401, "send a token: authorization: Bearer TOKEN", "authorization", "no-token");
  };
  const wrong = () => {
    throw new ApiError(401, "the token is not good (any more)", "authorization", "bad-token");
  };
  const ask = bearerAuth({
    verifyToken: (token, c) => verify(access, alsoGood, token, c),
    noAuthenticationHeader: { message: missing },
    invalidAuthenticationHeader: { message: missing },
    invalidToken: { message: wrong },
  });
  return async (c, next) => OPEN_PATHS.test(c.req.path) ? await next() : await ask(c, next);
}

function verify(access: Access, alsoGood: AlsoGood, token: string, c: Context): boolean {
  const { method, path } = c.req;
  if (alsoGood(token, path)) return true;
  const role = access.roleOf(token);
  if (!role) return false;
  c.set("role", role.role);
  c.set("token", role);
  if (isAllowed(role, method, path)) return true;
  const what = role.role === "vf"
    ? `looks at vf ${role.vf} and changes its policy`
    : `looks, and changes nothing${method === "GET" ? "; what others send is not shown to it" : ""}`;
  throw new ApiError(403, `this token ${what}: ${method} ${path} is for another one`, "authorization", "not-allowed");
}
