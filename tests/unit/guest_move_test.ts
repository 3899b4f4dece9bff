/** A built-in guest's move as it is shown at a terminal. */
import { assertEquals } from "@std/assert";
import { progressBar } from "../../services/cli/guest_move.ts";
import type { Departure } from "../../shared/api/mod.ts";

const TRANSFER: Departure["transfer"] = {
  ...{ rounds: 2, bytesSent: 3_000_000, bytesTotal: 4_000_000, bytesRemaining: 1_000_000, bytesPerSecond: 12_345_678 },
};

function departure(transfer: Partial<Departure["transfer"]>, now?: string): Departure {
  const startedAt = "2026-01-01T00:00:00.000Z";
  const transferred = { ...TRANSFER, ...transfer };
  return { id: "1", what: "", state: "running", startedAt, transfer: transferred, ...(now ? { now } : {}) };
}

Deno.test("a move's bar: how much has been sent, the round, what is left, the rate, and for how long it would stop", () => {
  const bar = `[${"#".repeat(18)}${"·".repeat(6)}] 75 %`;
  assertEquals(progressBar(departure({})), `${bar} · round 2 · 1.0 MB left · 12.3 MB/s`);
  assertEquals(
    progressBar(departure({ expectedDowntimeMs: 81 }, "the guest is copied")),
    `${bar} · round 2 · 1.0 MB left · 12.3 MB/s · would stop for 81 ms · the guest is copied`,
  );
  assertEquals(
    progressBar(departure({ rounds: 0, bytesSent: 0, bytesTotal: 0, bytesRemaining: 0, bytesPerSecond: 0 })),
    `[${"·".repeat(24)}] 0 % · round 0 · 0.0 MB left · 0.0 MB/s`,
  );
});
