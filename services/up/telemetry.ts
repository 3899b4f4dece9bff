/**
 * What a service's OpenTelemetry is started with. Deno itself exports (OTEL_DENO=true), outside of its permissions; here
 * each service gets a name of its own, so that one can tell them apart.
 */

/**
 * Services without threads. Deno asks every thread of a process for its metrics and waits for the answers, at the end
 * too; an engine's thread and a guest's never turn to it. So the other services would be killed instead of ending.
 */
const SINGLE_THREADED = ["pf", "vf"];

/** Variables for the service `name`, which inherits `env`. What the user has set stays. */
export function telemetryOf(name: string, env: Record<string, string>): Record<string, string> {
  const isTrue = (variable: string) => ["true", "1"].includes(env[variable] ?? "");
  if (isTrue("OTEL_SDK_DISABLED") || !["OTEL_DENO", "OTEL_DENO_TRACING", "OTEL_DENO_METRICS"].some(isTrue)) return {};
  const isNamed = env.OTEL_SERVICE_NAME || /(^|,)\s*service\.name=/.test(env.OTEL_RESOURCE_ATTRIBUTES ?? "");
  return {
    ...(isNamed ? {} : { OTEL_SERVICE_NAME: `ringfabric-${name.replaceAll(" ", "-")}` }),
    ...(SINGLE_THREADED.includes(name) ? {} : { OTEL_DENO_METRICS: "false" }),
    // Its log is exported with its levels, and written to standard error by itself.
    ...(isTrue("OTEL_DENO") ? { OTEL_DENO_CONSOLE: env.OTEL_DENO_CONSOLE ?? "replace" } : {}),
  };
}
