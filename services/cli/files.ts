/** What keeps a file from being read or written, in words for whoever has named it. */

const FAULTS: [new (...args: never[]) => Error, string][] = [
  [Deno.errors.NotFound, "there is no such file or folder"],
  [Deno.errors.IsADirectory, "it is a folder"],
  [Deno.errors.NotADirectory, "what should be a folder on the way is none"],
  [Deno.errors.AlreadyExists, "it is there already, and is not overwritten: name another file"],
  [Deno.errors.PermissionDenied, "your user may not"],
  // Whatever is said: these places are closed to programs that run in Deno.
  [Deno.errors.NotCapable, "programs are kept out of there: name a file elsewhere"],
];

/** An error of Deno's about a file in words of ours; any other one as it is. */
export function fileFault(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const [, what] = FAULTS.find(([kind]) => error instanceof kind) ?? [];
  const [, path] = /: \w+ '([^']*)'/.exec(error.message) ?? /access to "([^"]*)"/.exec(error.message) ?? [];
  if (what === undefined || path === undefined) {
    return /os error 28\b/.test(error.message) ? new Error("the disk is full: make room, and say it again") : error;
  }
  return new Error(`cannot use ${path}: ${what}`, { cause: error });
}
