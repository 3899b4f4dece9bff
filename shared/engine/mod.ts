/** An engine and what it needs around it: arena and worker, memory tables, queues. The NIC is one, emulated mode another. */
export * from "./announce.ts";
export * from "./budget.ts";
export * from "./domain.ts";
export * from "./engine.ts";
export type { EngineExports } from "./engine_worker.ts";
export { advancedOffloads, GUEST_OFFLOADS, OFFLOAD_FEATURES, offloadsOf } from "./offloads.ts";
export { QUEUE_FEATURES } from "./queue_request.ts";
export { QUEUE_REASONS, type QueueState } from "./queue_state.ts";
export * from "./queues.ts";
export * from "./limits.ts";
export type { LogRequest } from "./log_requests.ts";
export type { DomainLimits } from "./regions.ts";
export * from "./tenants.ts";
export type { FilterExports } from "./filter_plan.ts";
export * from "./names.ts";
export * from "./packet_buffer.ts";
export { coalescePatch } from "./policy_image.ts";
export * from "./pools.ts";
