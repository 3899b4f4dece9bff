/** The device socket: how a service that drives queues gets at a VF of the NIC. Both roles. */
export * from "./channel.ts";
export * from "./client.ts";
export * from "./messages.ts";
export * from "./refusal.ts";
