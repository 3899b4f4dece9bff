/** Where a queue begins: where its driver says, or where somebody has kept that its ring stood. */
import type { EngineExports } from "./engine_worker.ts";
import type { StartRequest } from "./queue_request.ts";

/** `resumeQueue` looks for the position in the ring itself. */
const POSITION_IN_RING = -1;

/** Has the engine begin the queue at `at`, whose entry is written; answers OK, or why it cannot. */
export function beginQueue(
  wasm: Pick<EngineExports, "startQueue" | "continueQueue" | "resumeQueue" | "resumeInflight">,
  at: number,
  request: StartRequest,
  hasRegisters: boolean,
): number {
  const { flavour, base, next, resume, inflight } = request;
  if (flavour !== "packed") return wasm.startQueue(at, base);
  if (next !== undefined) return wasm.continueQueue(at, base, next);
  const kept = request.kept ?? (resume && !hasRegisters ? POSITION_IN_RING : undefined);
  if (resume && inflight !== undefined) return wasm.resumeInflight(at, base, kept ?? POSITION_IN_RING);
  return kept === undefined ? wasm.startQueue(at, base) : wasm.resumeQueue(at, base, kept);
}
