/**
 * Captures as pcapng (IETF draft-ietf-opsawg-pcapng): a section header, one interface, an enhanced packet block for each
 * frame, with nanosecond times and the direction in its flags. Wireshark and tshark open it.
 */
import {
  BYTE_ORDER_MAGIC,
  ENHANCED_PACKET,
  INTERFACE,
  LINKTYPE_ETHERNET,
  OPT_COMMENT,
  OPT_END,
  OPT_IF_TSRESOL,
  OPT_ISB_IFDROP,
  SECTION_HEADER,
  STATISTICS,
} from "./blocks.ts";

const OPT_IF_NAME = 2;
const OPT_EPB_FLAGS = 2;

function block(type: number, body: Uint8Array): Uint8Array<ArrayBuffer> {
  const padded = Math.ceil(body.length / 4) * 4;
  const bytes = new Uint8Array(12 + padded);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, bytes.length, true);
  bytes.set(body, 8);
  view.setUint32(8 + padded, bytes.length, true);
  return bytes;
}

function option(code: number, value: Uint8Array): number[] {
  const head = new Uint8Array(new Uint16Array([code, value.length]).buffer);
  return [...head, ...value, ...new Array((4 - value.length % 4) % 4).fill(0)];
}

/** A comment, as an option of a block. */
export function commentOption(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(option(OPT_COMMENT, new TextEncoder().encode(text)));
}

/** What an interface has lost until `ns` nanoseconds since 1970: a statistics block. */
export function statisticsBlock(id: number, ns: bigint, lost: bigint): Uint8Array<ArrayBuffer> {
  const fixed = new Uint8Array(12);
  const view = new DataView(fixed.buffer);
  view.setUint32(0, id, true);
  view.setUint32(4, Number(ns >> 32n), true);
  view.setUint32(8, Number(ns & 0xffffffffn), true);
  const count = new Uint8Array(new BigUint64Array([lost]).buffer);
  return block(STATISTICS, Uint8Array.from([...fixed, ...option(OPT_ISB_IFDROP, count), 0, 0, 0, 0]));
}

/** The blocks that a capture of these interfaces, of which up to `snapBytes` of each frame are kept, begins with. */
export function pcapngHeader(names: readonly string[], snapBytes = 0): Uint8Array<ArrayBuffer> {
  const section = new Uint8Array(16);
  const view = new DataView(section.buffer);
  view.setUint32(0, BYTE_ORDER_MAGIC, true);
  view.setUint16(4, 1, true);
  view.setBigInt64(8, -1n, true);
  const fixed = new Uint8Array(8);
  new DataView(fixed.buffer).setUint16(0, LINKTYPE_ETHERNET, true);
  new DataView(fixed.buffer).setUint32(4, snapBytes, true);
  const interfaces = names.map((name) =>
    block(
      INTERFACE,
      Uint8Array.from([
        ...fixed,
        ...option(OPT_IF_NAME, new TextEncoder().encode(name)),
        ...option(OPT_IF_TSRESOL, Uint8Array.of(9)),
        ...option(OPT_END, new Uint8Array()),
      ]),
    )
  );
  return Uint8Array.from([block(SECTION_HEADER, section), ...interfaces].flatMap((part) => [...part]));
}

/** Bytes of a frame's block beside the frame itself and what fills it up. */
const PACKET_BYTES = 12 + 20 + 12;

/** How long the block of a frame is of which `kept` bytes are kept. */
export function pcapngPacketBytes(kept: number): number {
  return PACKET_BYTES + Math.ceil(kept / 4) * 4;
}

/**
 * Writes a frame's block to byte `at` of `into`, which has room for it: `bytes` of its `length` bytes, seen at `ns`
 * nanoseconds since 1970. Answers where the block ends.
 */
export function putPcapngPacket(
  into: DataView,
  at: number,
  frame: { bytes: Uint8Array; length: number; ns: bigint; sent: boolean },
): number {
  const { bytes, length, ns, sent } = frame;
  const padded = Math.ceil(bytes.length / 4) * 4;
  const end = at + PACKET_BYTES + padded;
  into.setUint32(at, ENHANCED_PACKET, true);
  into.setUint32(at + 4, end - at, true);
  into.setUint32(at + 8, 0, true);
  into.setUint32(at + 12, Number(ns >> 32n), true);
  into.setUint32(at + 16, Number(ns & 0xffffffffn), true);
  into.setUint32(at + 20, bytes.length, true);
  into.setUint32(at + 24, length, true);
  new Uint8Array(into.buffer, into.byteOffset + at + 28, padded).fill(0, bytes.length);
  new Uint8Array(into.buffer, into.byteOffset + at + 28, bytes.length).set(bytes);
  const options = at + 28 + padded;
  into.setUint16(options, OPT_EPB_FLAGS, true);
  into.setUint16(options + 2, 4, true);
  into.setUint32(options + 4, sent ? 2 : 1, true);
  into.setUint32(options + 8, OPT_END, true);
  into.setUint32(end - 4, end - at, true);
  return end;
}
