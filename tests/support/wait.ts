/** Waiting on conditions with deadlines: tests never sleep for luck. */

/**
 * Resolves with the first truthy answer of `condition`; throws, naming `what`, when the deadline has passed. A condition
 * that is being looked at then has as long again for its answer. Pauses between looks grow up to `pauseMs`: most of what is
 * waited for is there within a millisecond or two.
 */
export async function until<T>(
  what: string,
  condition: () => T | undefined | false | null | Promise<T | undefined | false | null>,
  deadlineMs = 10_000,
  pauseMs = 10,
): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (let nextMs = Math.min(1, pauseMs);; nextMs = Math.min(pauseMs, 2 * nextMs)) {
    const pending = condition();
    const answer = pending instanceof Promise
      ? await within(`a look at ${what}`, pending, end + deadlineMs - performance.now())
      : pending;
    if (answer) return answer;
    if (performance.now() > end) throw new Error(`waited ${deadlineMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, nextMs));
  }
}

/** Passes `promise` on, or throws after `deadlineMs`. */
export async function within<T>(what: string, promise: Promise<T>, deadlineMs = 10_000): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${Math.round(deadlineMs)} ms`)), deadlineMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
