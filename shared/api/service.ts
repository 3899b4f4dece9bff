/**
 * The frame of a service: one line and exit code 1 if it cannot start, a clean end on SIGINT and SIGTERM, and the line
 * `READY {json}` on standard output that the supervisor waits for.
 */
import { tell } from "./log.ts";
import { say } from "./terminal.ts";

/** A service that runs. */
export interface RunningService {
  /** What it says about itself when it is ready. */
  info: Record<string, unknown>;
  /** Resolves or rejects if it ends by itself. */
  ended?: Promise<void>;
  /** Stops it; `isAlone`: a signal ends this service, and its fabric goes on. */
  close(isAlone: boolean): Promise<void> | void;
}

/** Prefix of the line on standard output that says a service is ready. */
export const READY_PREFIX = "READY ";

/** How long a supervisor takes to say that its signal was the same. */
const SUPERVISOR_MS = 300;

/** What an error says, in one line. */
export function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (text.split(/[\r\n]/)[0] ?? "").replaceAll(/\p{Cc}/gu, "?");
}

/**
 * Starts a service, waits for a signal, stops it and ends the process. Under a supervisor (RINGFABRIC_SUPERVISED) it
 * ends with its standard input instead, so that it never outlives a supervisor that was killed. Ctrl-C and a stop of
 * systemd may reach every process of a group at once, and services are to end in their order: so SIGINT and SIGHUP are
 * the supervisor's then, and SIGTERM ends this service alone, unless the supervisor says on the standard input that all
 * are to end.
 */
export async function runService(name: string, start: () => Promise<RunningService>): Promise<never> {
  let service: RunningService | number;
  const stop = Promise.withResolvers<number>();
  const supervised = Deno.env.has("RINGFABRIC_SUPERVISED");
  let allEnd = false;
  let isAlone = false;
  const endAlone = () => {
    if (allEnd) return;
    isAlone = true;
    stop.resolve(0);
  };
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {
      if (!supervised) stop.resolve(0);
      else if (signal === "SIGTERM") setTimeout(endAlone, SUPERVISOR_MS);
    });
  }
  if (supervised) {
    const said = new WritableStream({ write: () => void (allEnd = true) });
    void Deno.stdin.readable.pipeTo(said).then(() => stop.resolve(0));
  }
  try {
    // One that still waits for another service has nothing to give back yet.
    service = await Promise.race([start(), stop.promise]);
    if (typeof service === "number") Deno.exit(service);
  } catch (error) {
    tell("error", `${name}: ${oneLine(error)}`);
    Deno.exit(1);
  }
  service.ended?.then(() => stop.resolve(0), (error) => {
    tell("error", `${name}: ${oneLine(error)}`);
    stop.resolve(1);
  });
  say(READY_PREFIX + JSON.stringify(service.info));
  const code = await stop.promise;
  try {
    await service.close(isAlone);
  } catch (error) {
    tell("error", `${name}: while stopping: ${oneLine(error)}`);
  }
  Deno.exit(code);
}

/** Whether this service starts with its whole fabric, so that no guest of an earlier run is left. */
export function isNewFabric(): boolean {
  return Deno.env.has("RINGFABRIC_NEW_FABRIC");
}
