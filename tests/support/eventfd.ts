/** Turns an eventfd against whoever writes it. */
import { drainEventFd } from "../../shared/os/mod.ts";
import { libc } from "../../shared/os/libc.ts";

const F_SETFL = 4;

/** Fills the counter and makes the file blocking: the next write waits until somebody reads. */
export function blockWriters(fd: number): void {
  drainEventFd(fd);
  libc().write(fd, new BigUint64Array([0xffff_ffff_ffff_fffen]), 8n);
  libc().fcntl(fd, F_SETFL, 0n);
}
