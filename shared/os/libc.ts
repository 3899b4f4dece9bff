/**
 * The C library through FFI: the only place that calls it. Everything above works with numbers, byte arrays and
 * `OsError`; nothing above knows a struct layout. x86-64 and aarch64 Linux share the layouts used here.
 */

const SYMBOLS = {
  __errno_location: { parameters: [], result: "pointer" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  accept4: { parameters: ["i32", "usize", "usize", "i32"], result: "i32" },
  bpf: { name: "syscall", parameters: ["i64", "i64", "buffer", "i64"], result: "i32" },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  close_async: { name: "close", parameters: ["i32"], result: "i32", nonblocking: true },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  epoll_create1: { parameters: ["i32"], result: "i32" },
  epoll_ctl: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  // The C library has it since glibc 2.35 only; the first argument is the call's number.
  epoll_pwait2: {
    name: "syscall",
    parameters: ["i64", "i64", "buffer", "i64", "buffer", "u64", "u64"],
    result: "i32",
  },
  poll: { parameters: ["buffer", "u64", "i32"], result: "i32" },
  epoll_wait: { parameters: ["i32", "buffer", "i32", "i32"], result: "i32" },
  epoll_wait_async: {
    name: "epoll_wait",
    parameters: ["i32", "buffer", "i32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  fstat: { parameters: ["i32", "buffer"], result: "i32" },
  ftruncate: { parameters: ["i32", "i64"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  // futex(2), for which the C library has no function; the first argument is the call's number.
  futex_async: {
    name: "syscall",
    parameters: ["i64", "u64", "i64", "i64", "u64"],
    result: "i32",
    nonblocking: true,
  },
  // The kernel's asynchronous I/O, for which the C library has no functions; the first argument is the call's number.
  io_destroy: { name: "syscall", parameters: ["i64", "u64"], result: "i32" },
  io_getevents: { name: "syscall", parameters: ["i64", "u64", "i64", "i64", "buffer", "buffer"], result: "i32" },
  io_setup: { name: "syscall", parameters: ["i64", "i64", "buffer"], result: "i32" },
  io_submit: { name: "syscall", parameters: ["i64", "u64", "i64", "buffer"], result: "i32" },
  io_uring_enter: {
    name: "syscall",
    parameters: ["i64", "i64", "i64", "i64", "i64", "u64", "i64"],
    result: "i32",
  },
  io_uring_register: { name: "syscall", parameters: ["i64", "i64", "i64", "buffer", "i64"], result: "i32" },
  io_uring_setup: { name: "syscall", parameters: ["i64", "i64", "buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  ioctl_value: { name: "ioctl", parameters: ["i32", "u64", "u64"], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
  listen: { parameters: ["i32", "i32"], result: "i32" },
  memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
  mmap: { parameters: ["u64", "u64", "i32", "i32", "i32", "i64"], result: "u64" },
  mprotect: { parameters: ["u64", "u64", "i32"], result: "i32" },
  munmap: { parameters: ["u64", "u64"], result: "i32" },
  open: { parameters: ["buffer", "i32"], result: "i32" },
  open_new: { name: "open", parameters: ["buffer", "i32", "u32"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  pread: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  preadv: { parameters: ["i32", "buffer", "i32", "i64"], result: "isize" },
  preadv2: { parameters: ["i32", "buffer", "i32", "i64", "i32"], result: "isize" },
  pthread_mutex_init: { parameters: ["u64", "buffer"], result: "i32" },
  pthread_mutex_lock: { parameters: ["u64"], result: "i32" },
  pthread_mutex_lock_async: { name: "pthread_mutex_lock", parameters: ["u64"], result: "i32", nonblocking: true },
  pthread_mutexattr_init: { parameters: ["buffer"], result: "i32" },
  pthread_mutexattr_setpshared: { parameters: ["buffer", "i32"], result: "i32" },
  pthread_mutexattr_setrobust: { parameters: ["buffer", "i32"], result: "i32" },
  pwrite: { parameters: ["i32", "buffer", "usize", "i64"], result: "isize" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  // Memory that is named by its address.
  read_at: { name: "read", parameters: ["i32", "u64", "usize"], result: "isize" },
  readlink: { parameters: ["buffer", "buffer", "usize"], result: "isize" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  recvmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  recvmsg_at: { name: "recvmsg", parameters: ["i32", "u64", "i32"], result: "isize" },
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  sched_setscheduler: { parameters: ["i32", "i32", "buffer"], result: "i32" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "i32" },
  sendmsg: { parameters: ["i32", "buffer", "i32"], result: "isize" },
  sendmsg_at: { name: "sendmsg", parameters: ["i32", "u64", "i32"], result: "isize" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  sigaction: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  splice: { parameters: ["i32", "u64", "i32", "u64", "usize", "u32"], result: "isize" },
  strerror: { parameters: ["i32"], result: "pointer" },
  umask: { parameters: ["u32"], result: "u32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write_at: { name: "write", parameters: ["i32", "u64", "usize"], result: "isize" },
} as const satisfies Deno.ForeignLibraryInterface;

type Library = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let loaded: Library | undefined;

/** Binds functions. */
function bind(symbols: Deno.ForeignLibraryInterface): object {
  return Deno.dlopen("libc.so.6", symbols).symbols;
}

/**
 * The functions, each bound when it is used first: that takes 0.2 ms, and no process uses all of them. Those that read a
 * failed call's errno are there before it: binding one would change it.
 */
function boundWhenUsed(): Library {
  const { __errno_location, strerror, ...others } = SYMBOLS;
  const library = { ...bind({ __errno_location, strerror }) };
  for (const [name, symbol] of Object.entries<Deno.ForeignFunction>(others)) {
    Object.defineProperty(library, name, {
      configurable: true,
      get() {
        const bound = bind({ [name]: symbol });
        Object.defineProperties(library, Object.getOwnPropertyDescriptors(bound));
        return library[name as keyof typeof library];
      },
    });
  }
  return library as Library;
}

/** The C library's functions. Throws one clear sentence if FFI is not permitted. */
export function libc(): Library {
  if (loaded) return loaded;
  try {
    loaded = boundWhenUsed();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable || cause instanceof Deno.errors.PermissionDenied) {
      throw new Error("Cannot call the C library: FFI is not permitted; start this service with --allow-ffi", {
        cause,
      });
    }
    throw new Error(`Cannot load libc.so.6: ${cause instanceof Error ? cause.message : cause}`, { cause });
  }
  return loaded;
}

/** errno values that callers tell apart (asm-generic/errno.h). */
export const EPERM = 1;
export const EINTR = 4;
export const EACCES = 13;
export const EAGAIN = 11;
export const EBUSY = 16;
export const ECONNREFUSED = 111;
export const EINVAL = 22;
export const ENODEV = 19;
export const ENOENT = 2;
export const ELOOP = 40;
export const ENOSYS = 38;
export const EEXIST = 17;

const ERRNO_NAMES: Record<number, string> = {
  1: "EPERM",
  2: "ENOENT",
  4: "EINTR",
  5: "EIO",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  20: "ENOTDIR",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  28: "ENOSPC",
  32: "EPIPE",
  36: "ENAMETOOLONG",
  38: "ENOSYS",
  88: "ENOTSOCK",
  90: "EMSGSIZE",
  95: "EOPNOTSUPP",
  98: "EADDRINUSE",
  99: "EADDRNOTAVAIL",
  100: "ENETDOWN",
  104: "ECONNRESET",
  105: "ENOBUFS",
  107: "ENOTCONN",
  111: "ECONNREFUSED",
};

/** A failed system call: which call, on what object, with what errno. */
export class OsError extends Error {
  override readonly name = "OsError";
  readonly call: string;
  readonly errno: number;

  constructor(call: string, object: string, errno: number) {
    const text = loaded?.strerror(errno);
    const meaning = text ? Deno.UnsafePointerView.getCString(text) : "unknown error";
    super(`${call}(${object}): ${ERRNO_NAMES[errno] ?? errno}, ${meaning}`);
    this.call = call;
    this.errno = errno;
  }

  /** The error's short name, such as `EAGAIN`. */
  get code(): string {
    return ERRNO_NAMES[this.errno] ?? String(this.errno);
  }
}

/** errno of the call that has just failed. Read it before anything else is called. */
export function errno(): number {
  const at = libc().__errno_location();
  return at ? new Deno.UnsafePointerView(at).getInt32() : 0;
}

/** `result` if the call succeeded; throws an OsError naming `call` and `object` if it is negative. */
export function check(result: number, call: string, object: string): number {
  if (result < 0) throw new OsError(call, object, errno());
  return result;
}

/** Native address of a buffer. The caller keeps the buffer alive for as long as C may use it. */
export function addressOf(buffer: ArrayBufferView): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer as Uint8Array<ArrayBuffer>));
}
