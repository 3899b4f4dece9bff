/**
 * What somebody's descriptor is, and whether it may be kept. Nothing here asks the file itself, which could wait for as
 * long as its owner likes (fstat of a file on FUSE does).
 */
import { check, errno, libc, OsError } from "./libc.ts";

/** What kind of file a descriptor is, as `/proc/self/fd` names it. */
export function fdTarget(fd: number): string {
  const path = new TextEncoder().encode(`/proc/self/fd/${fd}\0`);
  const target = new Uint8Array(256);
  const length = Number(libc().readlink(path, target, BigInt(target.length)));
  if (length < 0) throw new OsError("readlink", `/proc/self/fd/${fd}`, errno());
  return new TextDecoder().decode(target.subarray(0, length));
}

/** What kind of file a descriptor is that somebody sent. A socket is a Unix socket; of other families it is "other". */
export type FdKind = "eventfd" | "socket" | "pipe" | "other";

// linux/fcntl.h
export const F_GET_SEALS = 1034;
// sys/socket.h
const SOL_SOCKET = 1;
const SO_LINGER = 13;
const SO_TYPE = 3;
const SO_PEERCRED = 17;
const SO_DOMAIN = 39;
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SHUT_RD = 0;
const SHUT_RDWR = 2;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
// asm-generic/ioctls.h
const FIONREAD = 0x541bn;

/** The kind of a descriptor that somebody sent. */
export function kindOf(fd: number): FdKind {
  const target = fdTarget(fd);
  if (target.startsWith("anon_inode:[eventfd]")) return "eventfd";
  if (target.startsWith("pipe:[")) return "pipe";
  return target.startsWith("socket:[") && isUnixSocket(fd) ? "socket" : "other";
}

/** Whether a descriptor is a file in memory (memfd, tmpfs, hugetlbfs): only those have seals, set or not. */
export function isMemoryFile(fd: number): boolean {
  return libc().fcntl(fd, F_GET_SEALS, 0n) >= 0;
}

function isUnixSocket(fd: number): boolean {
  return socketOption(fd, SO_DOMAIN) === AF_UNIX;
}

/** The first word of a socket option. */
function socketOption(fd: number, option: number): number {
  const words = new Int32Array(3);
  const bytes = new Uint32Array([words.byteLength]);
  check(libc().getsockopt(fd, SOL_SOCKET, option, words, bytes), `getsockopt ${option}`, `fd ${fd}`);
  return words[0] ?? 0;
}

/** The process at the other end of a connected Unix socket, as the kernel has it. */
export function peerPid(fd: number): number {
  // The first word of struct ucred.
  return socketOption(fd, SO_PEERCRED);
}

/** Has a socket of any family drop what it has not sent when it is closed, instead of waiting for its peer. */
export function disarmLinger(fd: number): void {
  // struct linger: off. What is no socket answers ENOTSOCK.
  libc().setsockopt(fd, SOL_SOCKET, SO_LINGER, new Int32Array(2), 8);
}

/** Ends a socket's direction to us: nothing more can be put into its queue. False if it has none. */
export function shutDownReceiving(fd: number): boolean {
  return libc().shutdown(fd, SHUT_RD) === 0;
}

/** Ends a connection for whoever has it: its peer sees its end, also if other processes hold the same socket. */
export function shutDown(fd: number): void {
  // A peer that has gone already is as good.
  libc().shutdown(fd, SHUT_RDWR);
}

/**
 * What is wrong with a Unix socket that somebody sent and that is only to be written, if anything. It must not keep
 * alive what ends with its sender: a connection whose other end is ours would never be seen to end, were we to hold this
 * end too. The same goes for a socket in which somebody has put such a descriptor. So this takes connected streams of
 * other processes, closes their direction to us, and makes sure that nothing is in them.
 */
export function socketFault(fd: number): string | undefined {
  if (socketOption(fd, SO_TYPE) !== SOCK_STREAM) return "it is not a stream socket";
  const nothing = new Uint8Array(0);
  if (libc().send(fd, nothing, 0n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return "it is not connected";
  if (peerPid(fd) === Deno.pid) return "its other end is this service's own";
  check(libc().shutdown(fd, SHUT_RD), "shutdown SHUT_RD", `fd ${fd}`);
  const unread = new Int32Array(1);
  check(libc().ioctl(fd, FIONREAD, unread), "ioctl FIONREAD", `fd ${fd}`);
  return unread[0] === 0 ? undefined : "it has unread bytes";
}
