/**
 * Reading and writing somebody else's memory file without a mapping. Who shares the file can truncate it at any moment: a
 * mapping would answer that with a signal, a system call answers it with a number. For the few bytes of a control queue
 * that is fast enough.
 */
import { createMemfd, type Fd, fileStatus } from "./fd.ts";
import { check, libc } from "./libc.ts";

const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;

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
  const address = libc().mmap(0n, length, PROT_READ_WRITE, MAP_SHARED, fd, BigInt(from));
  if (address === MAP_FAILED) return false;
  try {
    const vector = new BigUint64Array([address + BigInt(offset - from), BigInt(bytes.byteLength)]);
    return libc().preadv(scratch.number, vector, 1, 0n) === BigInt(bytes.byteLength);
  } finally {
    libc().munmap(address, length);
  }
}
