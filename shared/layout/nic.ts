/** Where an engine's state lies in its arena, all of it (shared/layout/engine). */
export * from "./engine/map.ts";
export * from "./engine/control.ts";
export * from "./engine/queue.ts";
export * from "./engine/pool.ts";
export * from "./engine/tables.ts";
export * from "./engine/batch.ts";
export * from "./engine/direct.ts";
export * from "./engine/capture.ts";
