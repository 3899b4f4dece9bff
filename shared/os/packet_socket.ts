/**
 * Packet sockets (packet(7)) on an Ethernet interface: every frame that comes in on it is read, whatever its address, and
 * what is written goes out on it. Each frame has the kernel's virtio-net header of ten bytes before it.
 */
import { Fd } from "./fd.ts";
import { check, EACCES, EPERM, errno, libc, OsError } from "./libc.ts";
import { SOCK_CLOEXEC, SOCK_NONBLOCK } from "./socket.ts";

// sys/socket.h, linux/if_ether.h, linux/if_packet.h
const AF_PACKET = 17;
const SOCK_RAW = 3;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const ETH_P_ALL = 3;
const SOL_PACKET = 263;
const PACKET_ADD_MEMBERSHIP = 1;
const PACKET_STATISTICS = 6;
const PACKET_AUXDATA = 8;
const PACKET_VNET_HDR = 15;
const PACKET_IGNORE_OUTGOING = 23;
const PACKET_MR_PROMISC = 1;
const SOCKADDR_LL_BYTES = 20;
/** Frames that the kernel keeps each way for a thread that does not run for a moment. */
const BUFFER_BYTES = 4 * 1024 ** 2;

/** A packet socket on interface number `index`. Its `name` is for people. Throws what to do if it cannot be. */
export function openPacketSocket(name: string, index: number): Fd {
  // Of no protocol: it reads nothing before it is bound, when it would read what comes in on other interfaces.
  const number = libc().socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (number < 0) throw openFault(name, new OsError("socket", "packet", errno()));
  const fd = new Fd(number);
  try {
    setWord(fd, SOL_PACKET, PACKET_VNET_HDR, "PACKET_VNET_HDR", 1);
    setWord(fd, SOL_PACKET, PACKET_AUXDATA, "PACKET_AUXDATA", 1);
    setWord(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, "PACKET_IGNORE_OUTGOING", 1);
    setBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    setBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
    const membership = new DataView(new ArrayBuffer(16));
    membership.setInt32(0, index, true);
    membership.setUint16(4, PACKET_MR_PROMISC, true);
    const bytes = new Uint8Array(membership.buffer);
    check(libc().setsockopt(fd.number, SOL_PACKET, PACKET_ADD_MEMBERSHIP, bytes, 16), "PACKET_ADD_MEMBERSHIP", name);
    const address = new DataView(new ArrayBuffer(SOCKADDR_LL_BYTES));
    address.setUint16(0, AF_PACKET, true);
    address.setUint16(2, ETH_P_ALL);
    address.setInt32(4, index, true);
    check(libc().bind(fd.number, new Uint8Array(address.buffer), SOCKADDR_LL_BYTES), "bind", name);
    return fd;
  } catch (error) {
    fd.close();
    throw error;
  }
}

/** Frames that a packet socket had no room for since this was last asked. */
export function packetSocketDrops(fd: number): number {
  // struct tpacket_stats {packets u32, drops u32}
  const statistics = new Uint32Array(2);
  libc().getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, statistics, new Uint32Array([8]));
  return statistics[1] ?? 0;
}

function setWord(fd: Fd, level: number, option: number, what: string, value: number): void {
  check(
    libc().setsockopt(fd.number, level, option, new Int32Array([value]), 4),
    `setsockopt ${what}`,
    `fd ${fd.number}`,
  );
}

/** As large as is wanted, with the right to that; else as large as everybody may have it. */
function setBuffer(fd: Fd, force: number, plain: number): void {
  const bytes = new Int32Array([BUFFER_BYTES]);
  if (libc().setsockopt(fd.number, SOL_SOCKET, force, bytes, 4) < 0) {
    setWord(fd, SOL_SOCKET, plain, "buffer", BUFFER_BYTES);
  }
}

function openFault(name: string, cause: OsError): Error {
  const isForbidden = cause.errno === EPERM || cause.errno === EACCES;
  const advice = isForbidden ? "this needs CAP_NET_RAW" : cause.message;
  return new Error(`Cannot open a packet socket on ${name}: ${advice}`, { cause });
}
