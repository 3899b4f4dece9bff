/**
 * A UDP echo server (port 7) as a static ELF program for x86-64 Linux, for guests whose busybox has none: 149 bytes of
 * machine code that open a socket, bind it, and send back whatever comes, in a loop.
 *
 *     socket(AF_INET, SOCK_DGRAM, 0); bind(fd, {AF_INET, port 7, any}, 16); sub rsp, 0x11000
 *     loop: n = recvfrom(fd, rsp, 65536, 0, rsp+0x10080, &16); if (n < 0) goto loop
 *           sendto(fd, rsp, n, 0, rsp+0x10080, 16); goto loop
 */
import { decodeHex } from "@std/encoding/hex";

const CODE = decodeHex(
  "b829000000bf02000000be0200000031d20f0589c389c7488d3567000000ba10000000b8310000000f054881ec00100100c784240001010010000000" +
    "89df4889e6ba000001004531d24c8d8424800001004c8d8c2400010100b82d0000000f0585c078cd89c289df4889e64531d24c8d84248000010041" +
    "b910000000b82c0000000f05ebac02000007000000000000000000000000",
);
const BASE = 0x400000n;
const HEADER_BYTES = 64 + 56;

/** The program. */
export function udpEchoProgram(): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + CODE.length);
  const view = new DataView(bytes.buffer);
  // ELF header: magic, 64-bit, little-endian, executable, x86-64, entry behind the headers, one program header.
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true);
  view.setUint16(18, 62, true);
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BASE + BigInt(HEADER_BYTES), true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  // Program header: load the whole file, readable and executable.
  view.setUint32(64, 1, true);
  view.setUint32(68, 5, true);
  view.setBigUint64(80, BASE, true);
  view.setBigUint64(88, BASE, true);
  view.setBigUint64(96, BigInt(bytes.length), true);
  view.setBigUint64(104, BigInt(bytes.length), true);
  view.setBigUint64(112, 0x1000n, true);
  bytes.set(CODE, HEADER_BYTES);
  return bytes;
}
