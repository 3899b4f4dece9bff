/**
 * The frame of a service: one line and exit code 1 if it cannot start, a clean end on SIGINT and SIGTERM, and the line
 * `READY {json}` on standard output that the supervisor waits for.
 */

/** A service that runs. */
export interface RunningService {
  /** What it says about itself when it is ready. */
  info: Record<string, unknown>;
  /** Resolves or rejects if it ends by itself. */
  ended?: Promise<void>;
  close(): Promise<void> | void;
}

/** Prefix of the line on standard output that says a service is ready. */
export const READY_PREFIX = "READY ";

/** What an error says, in one line. */
export function oneLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (text.split(/[\r\n]/)[0] ?? "").replaceAll(/\p{Cc}/gu, "?");
}

/**
 * Starts a service, waits for a signal, stops it and ends the process. Under a supervisor (RINGFABRIC_SUPERVISED) it
 * ends with its standard input instead, so that it never outlives a supervisor that was killed. Signals are the
 * supervisor's then: Ctrl-C in a terminal and systemd's stop reach every process of a group at once, and services are to
 * end in their order.
 */
export async function runService(name: string, start: () => Promise<RunningService>): Promise<never> {
  let service: RunningService | number;
  const stop = Promise.withResolvers<number>();
  const supervised = Deno.env.has("RINGFABRIC_SUPERVISED");
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
    Deno.addSignalListener(signal, () => {
      if (!supervised) stop.resolve(0);
    });
  }
  if (supervised) {
    void Deno.stdin.readable.pipeTo(new WritableStream()).then(() => stop.resolve(0));
  }
  try {
    // One that still waits for another service has nothing to give back yet.
    service = await Promise.race([start(), stop.promise]);
    if (typeof service === "number") Deno.exit(service);
  } catch (error) {
    console.error(`${name}: ${oneLine(error)}`);
    Deno.exit(1);
  }
  service.ended?.catch((error) => {
    console.error(`${name}: ${oneLine(error)}`);
    stop.resolve(1);
  });
  console.log(READY_PREFIX + JSON.stringify(service.info));
  const code = await stop.promise;
  try {
    await service.close();
  } catch (error) {
    console.error(`${name}: while stopping: ${oneLine(error)}`);
  }
  Deno.exit(code);
}

/** Whether this service starts with its whole fabric, so that no guest of an earlier run is left. */
export function isNewFabric(): boolean {
  return Deno.env.has("RINGFABRIC_NEW_FABRIC");
}
