/**
 * The SIGBUS guard. A guest whose memory file shrinks under its mapping makes the next access raise SIGBUS in the
 * process that mapped it: one guest could end everybody's NIC. The guard is a signal handler that maps zero pages over
 * the faulting 2 MiB of the arena and lets the access go on. It marks those 2 MiB, so that the control thread can stop
 * the guest whose window they are in. A fault anywhere else gets the default action.
 *
 * There is one mark for each 2 MiB of the arena, and windows begin and end there. So no number of faults hides another
 * one: a list of addresses would run over when one guest faults everywhere in a large memory.
 *
 * A signal handler cannot be JavaScript, so it is 183 bytes of machine code, position-independent, with four constants
 * filled in. It makes two system calls, touches no stack but its own and needs no lock. On other processors there is
 * no guard: `installSigbusGuard` says so, and unsealed memory should then be refused.
 */
import { check, errno, libc, OsError } from "./libc.ts";
import { ARENA_BYTES, WINDOW_BYTES } from "./arena.ts";
import type { Arena } from "./arena.ts";

/*
 *  handler(int sig, siginfo_t *info, void *context):
 *     mov  rdi, [info + 16]               si_addr
 *     if rdi < ARENA_BASE or rdi >= ARENA_END goto foreign
 *     lock bts [FAULTS + 8], (rdi >> 21) - (ARENA_BASE >> 21)     which 2 MiB
 *     lock inc [FAULTS]                                           how often
 *     mmap(rdi & -2 MiB, 2 MiB, READ|WRITE, PRIVATE|FIXED|ANONYMOUS|NORESERVE, -1, 0)
 *     if it failed goto foreign
 *     ret                                 and the access is tried again
 *  foreign:
 *     rt_sigaction(SIGBUS, {SIG_DFL}, 0, 8)
 *     ret                                 and the access ends the process as it always would
 */
const CODE_X86_64 = "488b7e1048b8{base}4839c7726148b9{end}4839cf735249b8{fault}4889f948c1e91581e9{piece}f0490fab4808" +
  "f041ff004881e70000e0ffbe00002000ba0300000041ba3240000049c7c0ffffffff4531c9b8090000000f05483d00f0ffff7701c3" +
  "4883ec2848c704240000000048c74424080000000048c74424100000000048c744241800000000bf070000004889e631" +
  "d241ba08000000b80d0000000f054883c428c3";

const PAGE_BYTES = 4096n;
const PROT_READ = 1;
const PROT_WRITE = 2;
const PROT_EXEC = 4;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const SIGBUS = 7;
const SA_SIGINFO = 0x4;
const SA_ONSTACK = 0x0800_0000;
const SA_RESTART = 0x1000_0000;

/** What the guard writes: {count u32, pad u32, a bit for each 2 MiB of the address space that the arena has part in}. */
const MARKS = 8;
const MARK_WORDS = Math.ceil((ARENA_BYTES / WINDOW_BYTES + 1) / 32);

/** The number of the 2 MiB in which the arena begins. */
function firstPiece(arena: Arena): bigint {
  return arena.base / BigInt(WINDOW_BYTES);
}

function littleEndianHex(value: bigint, length = 8): string {
  const bytes = new Uint8Array(new BigUint64Array([value]).buffer, 0, length);
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Installs the guard for the process. Faults in the arena are counted and marked at arena offset `faultOffset`, which
 * has FAULTS_BYTES for that (shared/layout/nic.ts). Answers false on a processor it was not written for.
 */
export function installSigbusGuard(arena: Arena, faultOffset: number): boolean {
  if (Deno.build.arch !== "x86_64") return false;
  const hex = CODE_X86_64
    .replace("{base}", littleEndianHex(arena.base))
    .replace("{end}", littleEndianHex(arena.base + BigInt(ARENA_BYTES)))
    .replace("{fault}", littleEndianHex(arena.base + BigInt(faultOffset)))
    .replace("{piece}", littleEndianHex(firstPiece(arena), 4));
  const code = Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));

  const page = libc().mmap(0n, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0n);
  if (page === MAP_FAILED) throw new OsError("mmap", "the SIGBUS guard", errno());
  const pointer = Deno.UnsafePointer.create(page);
  if (!pointer) throw new Error("Cannot install the SIGBUS guard: mmap answered a null page");
  new Uint8Array(Deno.UnsafePointerView.getArrayBuffer(pointer, code.byteLength)).set(code);
  check(libc().mprotect(page, PAGE_BYTES, PROT_READ | PROT_EXEC), "mprotect", "the SIGBUS guard");

  // glibc's struct sigaction: handler u64, mask 128 bytes, flags i32, restorer u64.
  const action = new Uint8Array(152);
  const view = new DataView(action.buffer);
  view.setBigUint64(0, page, true);
  view.setInt32(136, SA_SIGINFO | SA_ONSTACK | SA_RESTART, true);
  check(libc().sigaction(SIGBUS, action, 0n), "sigaction", "SIGBUS");
  return true;
}

/**
 * Takes the marks of faults: the arena offset of each 2 MiB in which one was caught since the last call. No thread that
 * uses the arena may run meanwhile.
 */
export function takeFaults(arena: Arena, faultOffset: number): number[] {
  const words = new Uint32Array(arena.buffer, faultOffset + MARKS, MARK_WORDS);
  const offsets: number[] = [];
  words.forEach((word, i) => {
    for (let bit = 0; bit < 32; bit++) {
      if ((word >>> bit & 1) === 0) continue;
      const address = (firstPiece(arena) + BigInt(i * 32 + bit)) * BigInt(WINDOW_BYTES);
      offsets.push(Number(address - arena.base));
    }
  });
  words.fill(0);
  return offsets;
}
