/** Regular files of the host that a service reads or writes by itself, for which the runtime has no permission to give. */
import { Fd, fileStatus } from "./fd.ts";
import { errno, libc, OsError } from "./libc.ts";

const O_RDONLY = 0;
const O_RDWR = 2;
const O_CREAT = 0o100;
const O_APPEND = 0o2000;
/** What is no regular file must not keep whoever opens it. */
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
/** A link in a folder that others write to could lead anywhere. */
const O_NOFOLLOW = 0o400000;
const PRIVATE = 0o600;

function open(path: string, flags: number): Fd {
  const number = libc().open_new(new TextEncoder().encode(`${path}\0`), flags | O_NONBLOCK | O_CLOEXEC, PRIVATE);
  if (number < 0) throw new OsError("open", path, errno());
  const fd = new Fd(number);
  if (fileStatus(number).isRegular) return fd;
  fd.close();
  throw new Error(`${path} is no regular file`);
}

/** Opens a file to read it. */
export function openToRead(path: string): Fd {
  return open(path, O_RDONLY);
}

/** Opens a file, no link to one, to write behind what is in it; makes it, for its owner alone, if it is not there. */
export function openToAppend(path: string): Fd {
  return open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW);
}

/** Reads up to `into.byteLength` bytes of `fd` from byte `offset` on; answers how many there were. */
export function readAt(fd: number, into: Uint8Array<ArrayBuffer>, offset: number): number {
  const n = Number(libc().pread(fd, into, BigInt(into.byteLength), BigInt(offset)));
  if (n < 0) throw new OsError("pread", `fd ${fd}`, errno());
  return n;
}

/** Writes all of `bytes` to `fd`. */
export function writeAll(fd: number, bytes: Uint8Array<ArrayBuffer>): void {
  for (let at = 0; at < bytes.byteLength;) {
    const n = Number(libc().write(fd, bytes.subarray(at), BigInt(bytes.byteLength - at)));
    if (n < 0) throw new OsError("write", `fd ${fd}`, errno());
    at += n;
  }
}
