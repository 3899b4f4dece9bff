/**
 * Network namespaces. A thread is in one; what it opens there (sockets, TAPs) stays there when the thread has gone back.
 * So this thread enters a namespace for as long as it opens something, without giving way to anything else meanwhile.
 */
import { Fd, fileStatus } from "./fd.ts";
import { check, EINVAL, ENOENT, EPERM, errno, libc, OsError } from "./libc.ts";

const O_RDONLY_CLOEXEC = 0o2000000;
const CLONE_NEWNET = 0x40000000;
const OWN = "/proc/thread-self/ns/net";

function open(path: string): Fd {
  const fd = libc().open(new TextEncoder().encode(`${path}\0`), O_RDONLY_CLOEXEC);
  if (fd < 0) throw new OsError("open", path, errno());
  return new Fd(fd);
}

/** Where the namespace is that a person calls `name`: one of `ip netns`, or that of a process by its number. */
export function namespacePath(name: string): string {
  if (/^\d+$/.test(name)) return `/proc/${name}/ns/net`;
  if (!/^[^/\p{C}]+$/u.test(name) || name === "." || name === "..") {
    throw new Error(`"${name}" is no network namespace: say a name of \`ip netns list\`, or a process's number`);
  }
  return `/run/netns/${name}`;
}

/** What to do about a namespace that cannot be entered. */
function advice(path: string, cause: OsError): string {
  if (cause.errno === EPERM) return "this needs CAP_SYS_ADMIN";
  const [, pid] = /^\/proc\/(\d+)\//.exec(path) ?? [];
  if (cause.errno === ENOENT) {
    return pid === undefined ? "there is none: `ip netns list` says which there are" : `there is no process ${pid}`;
  }
  return cause.errno === EINVAL ? "it is a file of another kind: `ip netns add` makes namespaces" : cause.message;
}

/** Opens the namespace at `path`. Throws what to do. */
function openOther(path: string): Fd {
  try {
    return open(path);
  } catch (cause) {
    if (!(cause instanceof OsError)) throw cause;
    throw new Error(`Cannot enter network namespace ${path}: ${advice(path, cause)}`, { cause });
  }
}

/** Which network namespace is at `path` now; `undefined`: none. */
export function namespaceAt(path: string): string | undefined {
  try {
    using file = open(path);
    const { device, inode } = fileStatus(file.number);
    return `${device}:${inode}`;
  } catch {
    return undefined;
  }
}

/** Does `act`, which does not wait, in the network namespace at `path`; `undefined`: the one that this process is in. */
export function inNamespace<T>(path: string | undefined, act: () => T): T {
  if (path === undefined) return act();
  using own = open(OWN);
  using other = openOther(path);
  if (libc().setns(other.number, CLONE_NEWNET) < 0) {
    const cause = new OsError("setns", path, errno());
    throw new Error(`Cannot enter network namespace ${path}: ${advice(path, cause)}`, { cause });
  }
  try {
    return act();
  } finally {
    check(libc().setns(own.number, CLONE_NEWNET), "setns", OWN);
  }
}
