/**
 * What a program says to whoever started it, and to nobody else. What goes through `console` goes to OpenTelemetry too
 * while that is on: tokens may not, and what a service tells its supervisor has nothing to do there.
 */

type Stream = { writeSync(bytes: Uint8Array): number };

function writeAll(stream: Stream, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += stream.writeSync(bytes.subarray(at));
}

/** Writes all of `text`. Like console.log it does not fail for a reader that is gone. */
function write(stream: Stream, text: string): void {
  try {
    writeAll(stream, text);
  } catch {
    // Nobody reads any more: there is nobody to tell.
  }
}

/** A line on standard output. */
export function say(line: string): void {
  write(Deno.stdout, `${line}\n`);
}

/** An answer on standard output, and nothing else would do: throws what keeps it from being written. */
export function print(line: string): void {
  writeAll(Deno.stdout, `${line}\n`);
}

/** A line on standard error. */
export function complain(line: string): void {
  write(Deno.stderr, `${line}\n`);
}

/** A word, such as a path, as a shell takes it. */
export function shellQuoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
