/**
 * The XDP program of an uplink (bpf(2)): frames that come in on a queue for which an AF_XDP socket is in the map go to
 * that socket, all others on to the kernel. It is on the interface for as long as this is open.
 */
import { Fd } from "./fd.ts";
import { addressOf, EACCES, EBUSY, EPERM, errno, libc, OsError } from "./libc.ts";

// asm/unistd.h, linux/bpf.h
const CALL = Deno.build.arch === "aarch64" ? 280n : 321n;
const BPF_MAP_CREATE = 0n;
const BPF_MAP_UPDATE_ELEM = 2n;
const BPF_PROG_LOAD = 5n;
const BPF_LINK_CREATE = 28n;
const BPF_MAP_TYPE_XSKMAP = 17;
const BPF_PROG_TYPE_XDP = 6;
const BPF_XDP = 37;
const ATTRIBUTE_BYTES = 128;
const LOG_BYTES = 4096;

const XDP_PASS = 2;
const BPF_FUNC_redirect_map = 51;
const BPF_PSEUDO_MAP_FD = 1;
/** Offset of rx_queue_index in struct xdp_md. */
const RX_QUEUE_INDEX = 16;

/** One instruction: opcode, destination and source register, offset, immediate value. */
function instruction(code: number, [dst, src]: [number, number], offset: number, value: number): number[] {
  return [
    code,
    dst | src << 4,
    ...new Uint8Array(new Int16Array([offset]).buffer),
    ...new Uint8Array(new Int32Array([value]).buffer),
  ];
}

/** return bpf_redirect_map(&map, context->rx_queue_index, XDP_PASS); */
function program(map: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([
    ...instruction(0x61, [2, 1], RX_QUEUE_INDEX, 0),
    ...instruction(0x18, [1, BPF_PSEUDO_MAP_FD], 0, map),
    ...instruction(0, [0, 0], 0, 0),
    ...instruction(0xb7, [3, 0], 0, XDP_PASS),
    ...instruction(0x85, [0, 0], 0, BPF_FUNC_redirect_map),
    ...instruction(0x95, [0, 0], 0, 0),
  ]);
}

function bpf(command: bigint, what: string, write: (attributes: DataView) => void): number {
  const attributes = new DataView(new ArrayBuffer(ATTRIBUTE_BYTES));
  write(attributes);
  const result = libc().bpf(CALL, command, new Uint8Array(attributes.buffer), BigInt(ATTRIBUTE_BYTES));
  if (result < 0) throw new OsError(what, "bpf", errno());
  return result;
}

/** The program, its map and its place on an interface. */
export class XdpProgram implements Disposable {
  readonly #fds: Fd[] = [];
  readonly #map: number;

  /** Puts it on interface number `index`, called `name`, for sockets of queues below `queues`. Throws what to do. */
  constructor(name: string, index: number, queues: number) {
    try {
      this.#map = this.#keep(bpf(BPF_MAP_CREATE, "BPF_MAP_CREATE", (attributes) => {
        // {map_type, key_size, value_size, max_entries}
        [BPF_MAP_TYPE_XSKMAP, 4, 4, queues].forEach((value, i) => attributes.setUint32(i * 4, value, true));
      }));
      const loaded = this.#keep(load(this.#map));
      this.#keep(bpf(BPF_LINK_CREATE, "BPF_LINK_CREATE", (attributes) => {
        // {prog_fd, target_ifindex, attach_type, flags}
        [loaded, index, BPF_XDP, 0].forEach((value, i) => attributes.setUint32(i * 4, value, true));
      }));
    } catch (error) {
      this.close();
      throw fault(name, error);
    }
  }

  #keep(fd: number): number {
    this.#fds.push(new Fd(fd));
    return fd;
  }

  /** Has frames of queue `queue` go to AF_XDP socket `socket`. */
  redirect(queue: number, socket: number): void {
    const key = new Uint32Array([queue]);
    const value = new Uint32Array([socket]);
    bpf(BPF_MAP_UPDATE_ELEM, "BPF_MAP_UPDATE_ELEM", (attributes) => {
      // {map_fd u32, pad u32, key u64, value u64, flags u64}
      attributes.setUint32(0, this.#map, true);
      attributes.setBigUint64(8, addressOf(key), true);
      attributes.setBigUint64(16, addressOf(value), true);
    });
  }

  /** Takes it from the interface. */
  close(): void {
    for (const fd of this.#fds.toReversed()) fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function load(map: number): number {
  const instructions = program(map);
  const licence = new TextEncoder().encode("Apache-2.0\0");
  const log = new Uint8Array(LOG_BYTES);
  return bpf(BPF_PROG_LOAD, "BPF_PROG_LOAD", (attributes) => {
    // {prog_type u32, insn_cnt u32, insns u64, license u64, log_level u32, log_size u32, log_buf u64, …}
    attributes.setUint32(0, BPF_PROG_TYPE_XDP, true);
    attributes.setUint32(4, instructions.byteLength / 8, true);
    attributes.setBigUint64(8, addressOf(instructions), true);
    attributes.setBigUint64(16, addressOf(licence), true);
    attributes.setUint32(24, 1, true);
    attributes.setUint32(28, LOG_BYTES, true);
    attributes.setBigUint64(32, addressOf(log), true);
  });
}

function fault(name: string, cause: unknown): Error {
  const code = cause instanceof OsError ? cause.errno : 0;
  const advice = code === EPERM || code === EACCES
    ? "this needs CAP_NET_ADMIN and CAP_BPF"
    : code === EBUSY
    ? `another XDP program is on it: ip link set ${name} xdp off`
    : cause instanceof Error
    ? cause.message
    : String(cause);
  return new Error(`Cannot put an XDP program on ${name}: ${advice}`, { cause });
}
