/** What is told of one port. Its guest causes it, so there is so much of it a second; the rest is counted. */
import { log } from "../../shared/api/mod.ts";

/** Lines that may come at once, and how long each takes to be allowed again. */
const BURST = 20;
const LINE_MS = 1000;

/** Writes a port's lines to the log; those that are too many are counted in the next one. */
export function portLog(
  label: string,
  write: typeof log = log,
  now = () => performance.now(),
): (level: "info" | "warn", message: string) => void {
  let paidUntil = 0;
  let leftOut = 0;
  return (level, message) => {
    const at = now();
    if (paidUntil - at > (BURST - 1) * LINE_MS) return void leftOut++;
    paidUntil = Math.max(paidUntil, at) + LINE_MS;
    const before = leftOut === 0 ? "" : ` (${leftOut} lines before it were left out)`;
    leftOut = 0;
    write(level, "vhost", `${label}: ${message}${before}`);
  };
}
