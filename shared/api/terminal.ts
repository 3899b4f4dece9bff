/**
 * What a program says to whoever started it, and to nobody else. What goes through `console` goes to OpenTelemetry too
 * while that is on: tokens may not, and what a service tells its supervisor has nothing to do there.
 */

/** Writes all of `text`. Like console.log it does not fail for a reader that is gone. */
function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const bytes = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
  } catch {
    // Nobody reads any more: there is nobody to tell.
  }
}

/** A line on standard output. */
export function say(line: string): void {
  write(Deno.stdout, `${line}\n`);
}

/** A line on standard error. */
export function complain(line: string): void {
  write(Deno.stderr, `${line}\n`);
}

/** A word, such as a path, as a shell takes it. */
export function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
