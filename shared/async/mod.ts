/** Order and pace of what happens in one thread. */
export * from "./away.ts";
export * from "./pace.ts";
export * from "./turns.ts";
