/** The vhost-user protocol. */
export * from "./connection.ts";
export * from "./protocol.ts";
export * from "./front_end.ts";
