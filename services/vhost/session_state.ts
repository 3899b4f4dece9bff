/** What the API shows of a session. */
import type { SessionState } from "../../shared/api/mod.ts";
import type { Rings } from "./rings.ts";

/** A session whose rings are `rings`, and of which the rest is `own`. */
export function sessionState(
  rings: Rings,
  own: { status: number; lastRefusal: string | undefined },
): SessionState {
  const { status, lastRefusal } = own;
  return {
    features: `0x${rings.features.toString(16)}`,
    protocolFeatures: `0x${rings.protocolFeatures.toString(16)}`,
    status,
    queuePairs: rings.queuePairs,
    memoryRegions: rings.memory.table.size,
    ...(lastRefusal === undefined ? {} : { lastRefusal }),
    ...rings.shown,
    vrings: rings.all.map((ring) => ({
      index: ring.index,
      size: ring.size,
      enabled: ring.enabled,
      running: ring.running,
      ...(ring.error === undefined ? {} : { error: ring.error }),
    })),
  };
}
