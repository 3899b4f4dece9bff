/**
 * A real kernel as the judge of segmentation: frames are written to one TAP with their virtio-net headers, a bridge hands
 * them to another TAP whose reader has agreed to nothing, and the kernel finishes them on the way. A program of its own,
 * since it runs in a network namespace: `kernel_segments.ts IN OUT`, both JSON, frames in hexadecimal digits.
 */
import { assertEquals } from "@std/assert";
import { decodeHex, encodeHex } from "@std/encoding/hex";
import { check, errno, Fd, libc } from "../../shared/os/mod.ts";
import type { NetHeader } from "./reference_offload.ts";
import { run } from "./judges.ts";
import { until } from "./wait.ts";

/** What is written for the program to read. */
export interface KernelCase {
  frame: string;
  header: NetHeader;
}

// fcntl.h, linux/if_tun.h
const O_RDWR_NONBLOCK = 0o4002;
const TUNSETIFF = 0x400454can;
const TUNSETOFFLOAD = 0x400454d0n;
const IFF_TAP_NO_PI_VNET_HDR = 0x0002 | 0x1000 | 0x4000;
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
const EAGAIN = 11;
/** struct virtio_net_hdr without num_buffers, as a TAP has it unless it is told otherwise. */
const HEADER_BYTES = 10;
const FRAME_BYTES_MAX = 70_000;
/** The longest that a TAP's may be: a packet of 65,535 bytes with its Ethernet header. */
const MTU = 65_521;
/** Says that everything before it has come through. Of an EtherType for experiments. */
const END = decodeHex("02660000000202660000000188b5".padEnd(120, "0"));

function openTap(name: string): Fd {
  const tap = new Fd(check(libc().open(new TextEncoder().encode("/dev/net/tun\0"), O_RDWR_NONBLOCK), "open", "tun"));
  const request = new Uint8Array(IFREQ_BYTES);
  request.set(new TextEncoder().encode(name));
  new DataView(request.buffer).setUint16(IFNAMSIZ, IFF_TAP_NO_PI_VNET_HDR, true);
  check(libc().ioctl(tap.number, TUNSETIFF, request), "ioctl TUNSETIFF", name);
  check(libc().ioctl(tap.number, TUNSETOFFLOAD, null), "ioctl TUNSETOFFLOAD", name);
  return tap;
}

/** Writes a frame; answers the error number of a kernel that refuses it. */
function write(tap: Fd, frame: Uint8Array, header: NetHeader): number {
  const bytes = new Uint8Array(HEADER_BYTES + frame.length);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, header.flags);
  view.setUint8(1, header.gsoType);
  view.setUint16(2, header.hdrLen, true);
  view.setUint16(4, header.gsoSize, true);
  view.setUint16(6, header.csumStart, true);
  view.setUint16(8, header.csumOffset, true);
  bytes.set(frame, HEADER_BYTES);
  return Number(libc().write(tap.number, bytes, BigInt(bytes.length))) < 0 ? errno() : 0;
}

const room = new Uint8Array(HEADER_BYTES + FRAME_BYTES_MAX);

/** The next frame that has come out, `undefined` if there is none yet. */
function read(tap: Fd): Uint8Array | undefined {
  const n = Number(libc().read(tap.number, room, BigInt(room.length)));
  if (n < 0) {
    assertEquals(errno(), EAGAIN);
    return undefined;
  }
  assertEquals([(room[0] ?? 0) & 1, room[1]], [0, 0], "a finished frame has nothing left to do");
  return room.slice(HEADER_BYTES, n);
}

const isEnd = (frame: Uint8Array) => encodeHex(frame).startsWith(encodeHex(END.subarray(0, 14)));

/** All that comes out for one frame, or the error number. */
async function judge(from: Fd, to: Fd, { frame, header }: KernelCase): Promise<string[] | number> {
  const refused = write(from, decodeHex(frame), header);
  write(from, END, { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 });
  const frames: Uint8Array[] = [];
  await until("the frames to come through", () => {
    for (let one = read(to); one; one = read(to)) {
      if (isEnd(one)) return true;
      frames.push(one);
    }
    return false;
  });
  return refused === 0 ? frames.map(encodeHex) : refused;
}

async function main([input = "", output = ""]: string[]): Promise<void> {
  const cases = JSON.parse(await Deno.readTextFile(input)) as KernelCase[];
  using from = openTap("from");
  using to = openTap("to");
  await run("sysctl", ["-q", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1"]);
  await run("ip", [
    "link",
    "add",
    "bridge0",
    "type",
    "bridge",
    "stp_state",
    "0",
    "forward_delay",
    "0",
    "mcast_snooping",
    "0",
  ]);
  for (const name of ["from", "to"]) {
    await run("ip", ["link", "set", name, "mtu", String(MTU), "txqueuelen", "5000", "master", "bridge0", "up"]);
  }
  await run("ip", ["link", "set", "bridge0", "mtu", String(MTU), "up"]);
  // What the bridge itself has to say when it comes up is not looked at.
  await until("the bridge to forward", () => {
    write(from, END, { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 });
    return read(to);
  });
  const results: (string[] | number)[] = [];
  for (const one of cases) {
    while (read(to));
    results.push(await judge(from, to, one));
  }
  await Deno.writeTextFile(output, JSON.stringify(results));
}

if (import.meta.main) await main(Deno.args);
