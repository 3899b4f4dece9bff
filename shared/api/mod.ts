/** Schemas of the HTTP APIs and what their servers and clients share. */
export * from "./app.ts";
export * from "./attach.ts";
export * from "./guest.ts";
export * from "./hypervisor.ts";
export * from "./listen.ts";
export * from "./mode.ts";
export * from "./nic.ts";
export * from "./options.ts";
export * from "./peer.ts";
export * from "./pf.ts";
export * from "./problem.ts";
export * from "./service.ts";
export * from "./showable.ts";
export * from "./sse.ts";
export * from "./vf.ts";
export * from "./vhost.ts";
export * from "./vport.ts";
