/** Memory files as hostile guests share them: such as take no seals, so that they can shrink under their mappings. */
import { check, Fd, libc } from "../../shared/os/mod.ts";

const MFD_CLOEXEC = 1;

/** Changes the size of a memory file. */
export function resize(fd: Fd, bytes: number): void {
  check(libc().ftruncate(fd.number, BigInt(bytes)), "ftruncate", `fd ${fd.number}`);
}

/** A memory file that nobody can seal. */
export function unsealableMemfd(bytes: number): Fd {
  const name = new TextEncoder().encode("ringfabric-unsealable\0");
  const fd = new Fd(check(libc().memfd_create(name, MFD_CLOEXEC), "memfd_create", "unsealable"));
  resize(fd, bytes);
  return fd;
}
