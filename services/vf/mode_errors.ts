/** Requests of modes that make no sense, and failures of changes, with the names that the API promises. */
import { ApiError, inForceOf, type ModeRequest, type VfMode, withDeadline } from "../../shared/api/mod.ts";

/** After a failure it is asked for so long what is in force now. */
const IN_FORCE_MS = 500;

/** Codes with which the NIC refuses a guest's memory. */
const MEMORY_CODES = new Set([
  "memory-limit",
  "unsealed",
  "huge-pages",
  "arena-full",
  "arena-share",
  "bad-fd",
  "past-end",
  "memory-gone",
]);

/** Throws unless a request makes sense by itself. */
export function checkRequest({ mode, plugin, force, dataPath }: ModeRequest): void {
  if (force && mode !== "emulated") {
    const detail = "force takes a VF back without asking its guest: it goes with mode emulated only";
    throw new ApiError(422, detail, "force", "incompatible-mode");
  }
  if (mode !== "emulated" && dataPath !== undefined) {
    const detail = "a data path is emulated mode's: in passthrough the guest's rings are the NIC's, or its plugin's";
    throw new ApiError(422, detail, "dataPath", "incompatible-mode");
  }
  if (mode === "emulated" && plugin !== undefined) {
    throw new ApiError(422, "emulated mode needs no plugin: the shell has its own", "plugin", "incompatible-plugin");
  }
}

/** A failure with the name that the API promises. */
export function named(error: unknown): ApiError {
  if (!(error instanceof ApiError)) return new ApiError(500, (error as Error).message, undefined, "step-failed");
  const { reason } = error;
  if (reason === "held") return new ApiError(409, error.message, "mode", "operation-in-progress");
  if (reason !== undefined && MEMORY_CODES.has(reason)) {
    return new ApiError(409, error.message, "mode", "memory-not-shareable");
  }
  if (
    (error.field === "plugin" || error.field === "image") && error.status === 422 && reason !== "incompatible-plugin"
  ) {
    return new ApiError(409, error.message, "plugin", "plugin-rejected");
  }
  return reason === undefined ? new ApiError(error.status, error.message, error.field, "step-failed") : error;
}

/** A failure of a change, with what is in force after it by the word of those who know; null if they do not say. */
export async function withInForce(failure: ApiError, ask: () => Promise<VfMode>): Promise<ApiError> {
  const { status, message, field, reason } = failure;
  const asked = withDeadline({ endsMs: performance.now() + IN_FORCE_MS }, ask);
  const inForce = await asked.then(inForceOf, () => null);
  return new ApiError(status, message, field, reason, inForce);
}
