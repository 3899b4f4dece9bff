/** Limits of guests in tests: as those that a service begins with, but for memory. */
import type { TenantLimits } from "../../shared/engine/mod.ts";

export const LIMITS: TenantLimits = {
  bytesMax: 1024 ** 3,
  sealedOnly: false,
  receivesMax: 32_768,
  submissionsMax: 32_768,
  bufferBytesMax: 4 * 1024 ** 2,
};

/** Nothing is used, and nothing was refused. */
export const UNUSED = {
  memory: { used: 0, limit: LIMITS.bytesMax },
  buffered: { used: 0, limit: LIMITS.bufferBytesMax },
  receives: { used: 0, limit: LIMITS.receivesMax, posted: 0 },
  submissions: { used: 0, limit: LIMITS.submissionsMax, posted: 0 },
  refused: {},
};
