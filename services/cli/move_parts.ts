/** What moves of guests have in common, whoever moves them. */
import { oneLine, type Vf } from "../../shared/api/mod.ts";
import type { Migration } from "./migration.ts";
import { UsageError } from "./values.ts";

/** What it has come to. */
export interface Moved {
  from: Vf;
  to: Vf;
  /** For how long the target did not have the guest's address yet, since the guest stood still. */
  swapMs: number;
  /** For how long a built-in guest stood still. */
  downtimeMs?: number;
  /** Why something is not as it was before. */
  note?: string;
}

/** Aborts after a time, or when the user interrupts. */
export function patience(seconds: number, late: string): Disposable & { signal: AbortSignal } {
  const ended = new AbortController();
  const timer = setTimeout(() => ended.abort(new UsageError(late)), seconds * 1000);
  const interrupted = () => ended.abort(new UsageError("interrupted: the guest goes on where it is"));
  Deno.addSignalListener("SIGINT", interrupted);
  return {
    signal: ended.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      Deno.removeSignalListener("SIGINT", interrupted);
    },
  };
}

/** Does what is needed after something has failed, and throws both: why, and what is not as it was. */
export async function takeBack(error: unknown, what: string, act: () => Promise<unknown>): Promise<void> {
  await act().catch((cause) => {
    throw new UsageError(`${oneLine(error)}; and ${what} (${oneLine(cause)})`);
  });
}

/** The source VF is as nobody had configured it, and both are shown. */
export async function outcome(migration: Migration): Promise<Moved> {
  return { from: await migration.tidy(), to: await migration.target.get(), swapMs: migration.swapMs };
}
