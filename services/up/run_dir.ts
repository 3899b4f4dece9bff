/** The run directory: sockets, settings and the lock of one fabric. */
import { oneLine, runDirFault } from "../../shared/api/mod.ts";

/** Makes the run directory and holds its lock until the process ends. Throws what to do if another fabric has it. */
export function claimRunDir(runDir: string): Deno.FsFile {
  try {
    Deno.mkdirSync(runDir, { recursive: true, mode: 0o700 });
    const fault = runDirFault(runDir);
    if (fault !== undefined) throw new Error(fault);
    const lock = Deno.openSync(`${runDir}/up.lock`, { create: true, write: true, mode: 0o600 });
    if (lock.tryLockSync(true)) return lock;
  } catch (error) {
    throw new Error(`Cannot use run directory ${runDir}: ${oneLine(error)}; choose another one with --run-dir`);
  }
  throw new Error(`Cannot use run directory ${runDir}: another fabric runs there; choose another one with --run-dir`);
}

/** Why nothing that is started in `runDir` can do its work: the directory is gone. */
export function runDirLoss(runDir: string): string | undefined {
  try {
    if (Deno.statSync(runDir).isDirectory) return undefined;
  } catch (error) {
    // What cannot be looked at now may be there all the same.
    if (!(error instanceof Deno.errors.NotFound)) return undefined;
  }
  return `the run directory ${runDir} is gone, with every policy in it: restore it from a backup, then start up again`;
}

/** What addresses of a new fabric are derived from: the same on the same machine for the same run directory. */
export function macSeed(runDir: string): string {
  try {
    return `${Deno.readTextFileSync("/etc/machine-id").trim()} ${runDir}`;
  } catch {
    return crypto.randomUUID();
  }
}

/** Whether there is a socket at `path`. */
export function hasSocket(path: string): boolean {
  try {
    return Deno.statSync(path).isSocket === true;
  } catch {
    return false;
  }
}

/** Removes what a killed service may have left: its sockets and the lock. Settings stay, and so do others' files. */
export function cleanUp(runDir: string): void {
  for (const { name } of Deno.readDirSync(runDir)) {
    const path = `${runDir}/${name}`;
    if (
      /^(up\.lock|fabric\.json)$/.test(name) ||
      (/^(nic|passthrough|nic-standby|vhost-standby)\.sock$/.test(name) && hasSocket(path))
    ) {
      Deno.removeSync(path);
    }
    if (/^(vf\d+|vport\d+|uplink)$/.test(name)) cleanUpPort(path);
  }
}

/** A port's directory goes if nothing but its socket is in it. */
function cleanUpPort(path: string): void {
  if (hasSocket(`${path}/vhost.sock`)) Deno.removeSync(`${path}/vhost.sock`);
  if ([...Deno.readDirSync(path)].length === 0) Deno.removeSync(path);
}
