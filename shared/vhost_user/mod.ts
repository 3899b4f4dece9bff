/** The vhost-user protocol. */
export * from "./connection.ts";
export * from "./protocol.ts";
