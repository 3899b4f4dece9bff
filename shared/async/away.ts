/**
 * Looking for what is away, such as a service that is being started again. What comes back soon is wanted at once, and
 * what stays away is to cost nothing: so the pauses grow with the time that it has been away.
 */

/** A look comes late by this share of the time at most. */
const SHARE = 1 / 40;
const PAUSE_MS_MIN = 10;
const PAUSE_MS_MAX = 200;

/** How long to wait before the next look for something that has been away for so long, in milliseconds. */
export function pauseMs(awayMs: number): number {
  return Math.min(PAUSE_MS_MAX, Math.max(PAUSE_MS_MIN, awayMs * SHARE));
}

/** Waits before the next look for something that has been away since `sinceMs`, by `performance.now()`. */
export function beforeNextLook(sinceMs: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, pauseMs(performance.now() - sinceMs)));
}
