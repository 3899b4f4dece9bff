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

/** Writes a file that its owner alone may read, in one step. */
export function writePrivately(path: string, text: string): void {
  const part = `${path}.${Deno.pid}.new`;
  Deno.writeTextFileSync(part, text, { mode: 0o600, createNew: true });
  Deno.renameSync(part, path);
}

/** The vhost-user socket of a port such as `vf0`: in a directory of its own, which a guest's container may be given. */
export function socketPath(runDir: string, port: string): string {
  return `${runDir}/${port}/vhost.sock`;
}
