/**
 * Between a guest and its hypervisor (the vf service): the guest says that it is there and how it is, and hears what its
 * interface is to be; its wishes for the interface go the same way.
 */
import { z } from "@hono/zod-openapi";
import { GuestMode, LinkState } from "./guest.ts";
import { GuestSeat } from "./guest_migration.ts";

/** A guest's port: the number of its VF, or `vport3`. */
export const GuestPort = z.string().regex(/^(vport)?(0|[1-9]\d{0,2})$/, "is a VF's number, or a vport such as vport3");

/** What a guest says about itself. */
export const GuestReport = z.strictObject({
  api: z.url().refine(
    (url) => /^https?:\/\/[^/?#@]+$/.test(url),
    "is an address without a path, such as http://10.0.0.1:8090",
  ),
  /** Changes when the guest boots. */
  boot: z.string().max(100),
  /** Nobody has answered it since it booted: the wishes of the guest before it are not its own. */
  first: z.boolean().default(false),
  mode: GuestMode,
  seat: GuestSeat.default("running"),
}).openapi("GuestReport");
export type GuestReport = z.output<typeof GuestReport>;

/** What its interface is to be. */
export const GuestConfig = LinkState.pick({ mac: true, up: true, promisc: true, multicast: true }).openapi(
  "GuestConfig",
);
export type GuestConfig = z.output<typeof GuestConfig>;

/** A guest as the hypervisor knows it. */
export const GuestView = z.object({
  port: z.string(),
  api: z.string(),
  mode: GuestMode,
  seat: GuestSeat,
  seenSecondsAgo: z.number(),
}).openapi("GuestView");
export type GuestView = z.output<typeof GuestView>;
/** Why there is nothing to say of a guest: none with a shell is on the port. */
export const NO_GUEST = "no-guest";
