/** vhost's hot standby: what it is told, and what it takes over. */
export * from "./follower.ts";
export * from "./kept_socket.ts";
export * from "./messages.ts";
export * from "./replica.ts";
export * from "./values.ts";
