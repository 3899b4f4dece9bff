/** Netdev ports: pools of the NIC with an interface, a TAP or a file of the host behind them. */
export * from "./backend.ts";
export * from "./capture_backend.ts";
export * from "./counters.ts";
export * from "./packet_backend.ts";
export * from "./port.ts";
export * from "./tap_backend.ts";
export * from "./xdp_backend.ts";
