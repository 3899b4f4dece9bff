/** Hot standby: what a process tells the one that stands by for it, and how that one takes over. */
export * from "./follower.ts";
export * from "./listen.ts";
export * from "./messages.ts";
export * from "./mirror.ts";
export * from "./upgrade.ts";
