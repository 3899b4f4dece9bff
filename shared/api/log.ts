/**
 * The services' log: text for people, or JSON for programs (RINGFABRIC_LOG_FORMAT=json), from a level on
 * (RINGFABRIC_LOG). What is done for a request of an API names the request, in every service that it has led to.
 * Deno hands what goes through `console` to OpenTelemetry, with the method's name as its severity.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { configureSync, getJsonLinesFormatter, getLogger, type LogRecord, withContext } from "@logtape/logtape";
import { complain } from "./terminal.ts";

const LEVELS = { info: "info", warn: "warning", error: "error" } as const;
/** How bad something is. */
export type LogLevel = keyof typeof LEVELS;

const NAME = "ringfabric";
const storage = new AsyncLocalStorage<Record<string, unknown>>();
const format = Deno.env.get("RINGFABRIC_LOG_FORMAT") === "json"
  ? getJsonLinesFormatter({ properties: "flatten" })
  : textLine;

/** When, how bad, who, what. */
function textLine({ timestamp, level, category, message, properties: { request } }: LogRecord): string {
  const word = level === "warning" ? "warn" : level;
  const end = request === undefined ? "" : ` (request ${request})`;
  return `${new Date(timestamp).toISOString()} ${word.padEnd(5)} ${(category[1] ?? "").padEnd(5)} ${
    message.join("")
  }${end}`;
}

/** Whether `console` is OpenTelemetry's alone, and writes nothing. */
const isConsoleExported = Deno.env.get("OTEL_DENO_CONSOLE") === "replace";

/** A finished line of log: on standard error, and in OpenTelemetry. */
export function tell(level: LogLevel, line: string): void {
  // Everything belongs on standard error, and console.info would write to standard output.
  if (!isConsoleExported) return console[level === "error" ? "error" : "warn"](line);
  complain(line);
  console[level](line);
}

configureSync({
  // The engine's benchmark has two checkouts in one process.
  reset: true,
  sinks: {
    stderr: (record) => {
      const level = (Object.keys(LEVELS) as LogLevel[]).find((one) => LEVELS[one] === record.level);
      tell(level ?? "error", format(record).trimEnd());
    },
  },
  loggers: [
    { category: NAME, lowestLevel: LEVELS[Deno.env.get("RINGFABRIC_LOG") as LogLevel] ?? "info", sinks: ["stderr"] },
    { category: ["logtape", "meta"], lowestLevel: "error", sinks: ["stderr"] },
  ],
  contextLocalStorage: storage,
});

/** One line of log. */
export function log(level: LogLevel, service: string, message: string): void {
  // Braces would be places for values.
  getLogger([NAME, service])[level](message.replaceAll(/[{}]/g, "$&$&"));
}

/** Runs `step` for a request: what is logged on the way names it, and services that are asked hear of it. */
export function forRequest<T>(id: string, step: () => T): T {
  return withContext({ request: id }, step);
}

/** The id of the request for which this is done, if it is done for one. */
export function currentRequest(): string | undefined {
  return storage.getStore()?.request as string | undefined;
}
