/**
 * Reading and writing somebody else's memory file. Whoever shares the file can truncate it at any moment, and this process
 * never touches the memory itself: reads are pread, and the kernel copies what is written into a mapping that lives as
 * long as the call, so a page that is not there is an error and no signal. For the few bytes of a control queue that is
 * fast enough.
 */
import { MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE } from "./arena.ts";
import { createMemfd, type Fd, fileStatus } from "./fd.ts";
import { check, libc } from "./libc.ts";

/** Reads `bytes` from byte `offset` of memory file `fd` on. False if the file does not have them all. */
export function readMemoryFile(fd: number, offset: number, bytes: Uint8Array<ArrayBuffer>): boolean {
  return libc().pread(fd, bytes, BigInt(bytes.byteLength), BigInt(offset)) === BigInt(bytes.byteLength);
}

/** A file of our own from which the kernel copies into a mapping: a page that is not there is an error then. */
let scratch: Fd | undefined;

/**
 * Writes `bytes` at byte `offset` of memory file `fd`. False if the file ends before, or must not be written. It is
 * written by a mapping that lives as long as this call: pwrite would wait for whoever resizes the file, go to its end if
 * its owner says O_APPEND, and cannot write to hugetlbfs.
 */
export function writeMemoryFile(fd: number, offset: number, bytes: Uint8Array<ArrayBuffer>): boolean {
  const pageBytes = Number(fileStatus(fd).blockBytes);
  const from = Math.floor(offset / pageBytes) * pageBytes;
  const length = BigInt(Math.ceil((offset + bytes.byteLength - from) / pageBytes) * pageBytes);
  scratch ??= createMemfd("ringfabric-scratch", 0x10000);
  check(Number(libc().pwrite(scratch.number, bytes, BigInt(bytes.byteLength), 0n)), "pwrite", "scratch file");
  const address = libc().mmap(0n, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, BigInt(from));
  if (address === MAP_FAILED) return false;
  try {
    const vector = new BigUint64Array([address + BigInt(offset - from), BigInt(bytes.byteLength)]);
    return libc().preadv(scratch.number, vector, 1, 0n) === BigInt(bytes.byteLength);
  } finally {
    libc().munmap(address, length);
  }
}
