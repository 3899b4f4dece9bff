/** Where a fabric on this machine has its run directory, and what it leaves there for who may use it. */

/** Where sockets and settings are if nobody says. */
export function defaultRunDir(): string {
  const runtime = Deno.env.get("XDG_RUNTIME_DIR");
  return runtime ? `${runtime}/ringfabric` : `/tmp/ringfabric-${Deno.uid() ?? "user"}`;
}

/** Where the demo has its own. */
export function demoRunDir(): string {
  return `${defaultRunDir()}-demo`;
}

/** Where a fabric keeps the operator's token. */
export function tokenFile(runDir: string): string {
  return `${runDir}/token`;
}

/** Where a fabric keeps the hashes of its tokens. */
export function accessFile(runDir: string): string {
  return `${runDir}/access.json`;
}

/** Where a fabric says how it is reached. */
export function fabricFile(runDir: string): string {
  return `${runDir}/fabric.json`;
}

/** Why a run directory cannot be believed: others can have made what is in it. None: it is this user's alone. */
export function runDirFault(runDir: string): string | undefined {
  const { uid, mode, isDirectory } = Deno.lstatSync(runDir);
  if (!isDirectory) return "it is no directory";
  if (uid !== Deno.uid()) return `it belongs to user ${uid}`;
  const bits = (mode ?? 0) & 0o7777;
  return (bits & 0o022) === 0 ? undefined : `others can write to it (mode ${bits.toString(8)}): chmod go-w it`;
}

/** Writes a file that its owner alone may read, in one step; it is on disk then. */
export function writePrivately(path: string, text: string): void {
  const part = `${path}.${crypto.randomUUID()}.new`;
  try {
    using file = Deno.openSync(part, { write: true, createNew: true, mode: 0o600 });
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.byteLength;) at += file.writeSync(bytes.subarray(at));
    file.syncSync();
    Deno.renameSync(part, path);
  } catch (error) {
    try {
      Deno.removeSync(part);
    } catch {
      // It was not made.
    }
    throw error;
  }
}

/** The vhost-user socket of a port such as `vf0`: in a directory of its own, which a guest's container may be given. */
export function socketPath(runDir: string, port: string): string {
  return `${runDir}/${port}/vhost.sock`;
}
