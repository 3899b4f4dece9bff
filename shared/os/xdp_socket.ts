/**
 * AF_XDP sockets (Documentation/networking/af_xdp.rst, linux/if_xdp.h), whose packet memory and rings lie in a Wasm
 * memory: Wasm fills and reads the rings itself. The kernel is called to send, and never to receive.
 */
import { Fd } from "./fd.ts";
import { check, EBUSY, EINVAL, EPERM, errno, libc, OsError } from "./libc.ts";
import { SOCK_CLOEXEC, SOCK_NONBLOCK } from "./socket.ts";
import type { WasmMemory } from "./wasm_memory.ts";

const AF_XDP = 44;
const SOCK_RAW = 3;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SOL_XDP = 283;
const XDP_MMAP_OFFSETS = 1;
const XDP_RX_RING = 2;
const XDP_TX_RING = 3;
const XDP_UMEM_REG = 4;
const XDP_UMEM_FILL_RING = 5;
const XDP_UMEM_COMPLETION_RING = 6;
const XDP_STATISTICS = 7;
/** Linux 6.17: how many frames one call sends at most; 32 before that. */
const XDP_MAX_TX_SKB_BUDGET = 9;
const SEND_MOST = 256;
const XDP_USE_NEED_WAKEUP = 1 << 3;
const ENOBUFS = 105;
const PAGE_BYTES = 4096;
/** A socket that was there before may take a moment to be gone. */
const BIND_TRIES = 50;
const BIND_PAUSE_MS = 20;
const SEND_BYTES = 4 * 1024 ** 2;

/** The rings {fill, completion, receive, transmit}: option, place in the file, bytes of an entry, place in the offsets. */
const RINGS = [
  [XDP_UMEM_FILL_RING, 0x1_0000_0000, 8, 2],
  [XDP_UMEM_COMPLETION_RING, 0x1_8000_0000, 8, 3],
  [XDP_RX_RING, 0, 16, 0],
  [XDP_TX_RING, 0x8000_0000, 16, 1],
] as const;

/** How a socket's memory is laid out. All are places and sizes in the Wasm memory. */
export interface XdpLayout {
  umem: number;
  umemBytes: number;
  chunkBytes: number;
  /** Where the rings are to be, in that order, and how many entries each has. */
  rings: readonly number[];
  sizes: readonly number[];
}

/** Where a ring's words and entries are. */
export interface XdpRing {
  producer: number;
  consumer: number;
  flags: number;
  entries: number;
}

/** A socket on one queue of an interface. */
export class XdpSocket implements Disposable {
  readonly fd: Fd;
  readonly rings: XdpRing[];

  private constructor(fd: Fd, rings: XdpRing[]) {
    this.fd = fd;
    this.rings = rings;
  }

  /** Opens one on queue `queue` of interface number `index`, called `name`. Throws what to do if it cannot be. */
  static async open(
    memory: WasmMemory,
    layout: XdpLayout,
    { name, index, queue }: { name: string; index: number; queue: number },
  ): Promise<XdpSocket> {
    const number = libc().socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (number < 0) throw fault(name, new OsError("socket", "xdp", errno()));
    const fd = new Fd(number);
    try {
      const rings = layOut(fd.number, memory, layout);
      await bind(fd.number, index, queue);
      return new XdpSocket(fd, rings);
    } catch (error) {
      fd.close();
      throw fault(name, error);
    }
  }

  /** Frames that the kernel had no room for, in its receive ring or because it had no chunk to fill. */
  get drops(): number {
    // struct xdp_statistics {rx_dropped, rx_invalid_descs, tx_invalid_descs, rx_ring_full, …} u64 each
    const statistics = new BigUint64Array(6);
    libc().getsockopt(this.fd.number, SOL_XDP, XDP_STATISTICS, statistics, new Uint32Array([48]));
    return Number((statistics[0] ?? 0n) + (statistics[3] ?? 0n));
  }

  close(): void {
    this.fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Has the kernel send what is in an AF_XDP socket's transmit ring: 0, or an errno. */
export function sendXdp(fd: number): number {
  return libc().send(fd, NOTHING, 0n, MSG_DONTWAIT) < 0 ? errno() : 0;
}
const NOTHING = new Uint8Array(0);
const MSG_DONTWAIT = 0x40;

function setWords(fd: number, option: number, what: string, words: ArrayBufferView & { byteLength: number }): void {
  const bytes = new Uint8Array(words.buffer as ArrayBuffer);
  check(libc().setsockopt(fd, SOL_XDP, option, bytes, bytes.byteLength), `setsockopt ${what}`, `fd ${fd}`);
}

function layOut(fd: number, memory: WasmMemory, layout: XdpLayout): XdpRing[] {
  // struct xdp_umem_reg {addr u64, len u64, chunk_size u32, headroom u32, flags u32, tx_metadata_len u32}
  const umem = new DataView(new ArrayBuffer(32));
  umem.setBigUint64(0, memory.base + BigInt(layout.umem), true);
  umem.setBigUint64(8, BigInt(layout.umemBytes), true);
  umem.setUint32(16, layout.chunkBytes, true);
  setWords(fd, XDP_UMEM_REG, "XDP_UMEM_REG", umem);
  RINGS.forEach(([option], i) => setWords(fd, option, `ring ${option}`, new Uint32Array([layout.sizes[i] ?? 0])));
  // Older kernels refuse it, and have more calls.
  libc().setsockopt(fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, new Uint8Array(new Uint32Array([SEND_MOST]).buffer), 4);
  // As large as it may be: what a socket has on its way is counted against this.
  libc().setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, new Int32Array([SEND_BYTES]), 4);
  // For each of {rx, tx, fill, completion}: {producer, consumer, desc, flags} u64
  const offsets = new BigUint64Array(16);
  const length = new Uint32Array([128]);
  check(libc().getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, offsets, length), "XDP_MMAP_OFFSETS", `fd ${fd}`);
  return RINGS.map(([, fileOffset, entryBytes, place], i) => {
    const at = layout.rings[i] ?? 0;
    const offset = (word: number) => Number(offsets[place * 4 + word] ?? 0n);
    const bytes = Math.ceil((offset(2) + (layout.sizes[i] ?? 0) * entryBytes) / PAGE_BYTES) * PAGE_BYTES;
    memory.map(at, fd, fileOffset, bytes);
    return { producer: at + offset(0), consumer: at + offset(1), entries: at + offset(2), flags: at + offset(3) };
  });
}

async function bind(fd: number, index: number, queue: number): Promise<void> {
  // struct sockaddr_xdp {family u16, flags u16, ifindex u32, queue_id u32, shared_umem_fd u32}
  const address = new DataView(new ArrayBuffer(16));
  address.setUint16(0, AF_XDP, true);
  address.setUint16(2, XDP_USE_NEED_WAKEUP, true);
  address.setUint32(4, index, true);
  address.setUint32(8, queue, true);
  for (let tries = 1;; tries++) {
    if (libc().bind(fd, new Uint8Array(address.buffer), 16) >= 0) return;
    const code = errno();
    if (code === EINVAL) throw new Error(`it has no queue ${queue}`);
    if (code !== EBUSY || tries === BIND_TRIES) throw new OsError("bind", `queue ${queue}`, code);
    await new Promise((resolve) => setTimeout(resolve, BIND_PAUSE_MS));
  }
}

function fault(name: string, cause: unknown): Error {
  const code = cause instanceof OsError ? cause.errno : 0;
  const advice = code === EPERM
    ? "this needs CAP_NET_RAW"
    : code === EBUSY
    ? "another program has a socket on that queue"
    : code === ENOBUFS
    ? "this user may not lock so much memory: raise its limit (ulimit -l), or give CAP_IPC_LOCK"
    : cause instanceof Error
    ? cause.message
    : String(cause);
  return new Error(`Cannot open an AF_XDP socket on ${name}: ${advice}`, { cause });
}
