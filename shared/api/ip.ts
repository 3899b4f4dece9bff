/** IP addresses and prefixes that a guest may use as its own. */
import { z } from "@hono/zod-openapi";
import { normalisedPrefix } from "./prefix.ts";

/** Addresses and prefixes that one port can have. */
export const ALLOWED_IPS_MAX = 16;

/** An address, or a prefix such as 10.0.0.0/24 or fe80::/10. */
export const IpPrefix = z.string().transform((text, context) => {
  const prefix = normalisedPrefix(text);
  if (prefix !== undefined) return prefix;
  context.addIssue("is not an IP address or prefix such as 10.0.0.5, 10.0.0.0/24 or fe80::/10");
  return z.NEVER;
}).openapi({ type: "string", example: "10.0.0.5", description: "IPv4 or IPv6 address or prefix" });
