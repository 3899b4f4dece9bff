/**
 * Frames out of a capture file, pcap (draft-ietf-opsawg-pcap) or pcapng (draft-ietf-opsawg-pcapng), of either byte order,
 * one after the other: however large the file is, a part of it is in memory. Whatever is wrong with it is an error that
 * says where.
 */
import {
  BYTE_ORDER_MAGIC,
  ENHANCED_PACKET,
  INTERFACE,
  LINKTYPE_ETHERNET,
  OPT_END,
  OPT_IF_TSRESOL,
  PACKET,
  SECTION_HEADER,
  SIMPLE_PACKET,
} from "./blocks.ts";

const PCAP_MICROSECONDS = 0xa1b2c3d4;
const PCAP_NANOSECONDS = 0xa1b23c4d;
const PCAP_HEADER_BYTES = 24;
const PCAP_RECORD_BYTES = 16;
/** Blocks are no longer than this: the longest frame, and options that nobody has. */
const BLOCK_BYTES_MAX = 1 << 20;
const BUFFER_BYTES = 2 * BLOCK_BYTES_MAX;

/** Reads up to `into.byteLength` bytes of the file from byte `offset` on; answers how many there were. */
export type ReadAt = (into: Uint8Array<ArrayBuffer>, offset: number) => number;

/** One frame of a capture. Its bytes are there until the next one is asked for. */
export interface CapturedFrame {
  bytes: Uint8Array<ArrayBuffer>;
  /** How long it was; more than there is of it if the capture has cut it off. */
  length: number;
  /** When it was seen, in ns, since whenever. */
  ns: number;
  isEthernet: boolean;
}

/** An interface of a pcapng section. */
interface CapturedInterface {
  isEthernet: boolean;
  nsPerTick: number;
  snapBytes: number;
}

/** What is wrong with a capture file. */
class CaptureError extends Error {
  override readonly name = "CaptureError";
}

/** Reads a capture file from its beginning. */
export class CaptureReader {
  readonly #read: ReadAt;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  readonly #view = new DataView(this.#buffer.buffer);
  /** The file's byte at the buffer's beginning, the next one to look at, and where what was read ends. */
  #base = 0;
  #at = 0;
  #end = 0;
  #isLittle = true;
  /** Of a pcap file: its one interface. Of a pcapng file: undefined. */
  #pcap: CapturedInterface | undefined;
  #interfaces: CapturedInterface[] = [];

  /** Throws if the file is no capture. */
  constructor(read: ReadAt) {
    this.#read = read;
    this.rewind();
  }

  /** Begins anew with the first frame. */
  rewind(): void {
    this.#base = this.#at = this.#end = 0;
    this.#interfaces = [];
    this.#pcap = undefined;
    if (!this.#has(4)) throw new CaptureError("it is empty");
    const magic = this.#view.getUint32(0, true);
    const swapped = this.#view.getUint32(0, false);
    if (magic === SECTION_HEADER) return;
    this.#isLittle = magic === PCAP_MICROSECONDS || magic === PCAP_NANOSECONDS;
    const found = this.#isLittle ? magic : swapped;
    if (found !== PCAP_MICROSECONDS && found !== PCAP_NANOSECONDS) {
      throw new CaptureError("it is no pcap or pcapng file");
    }
    if (!this.#has(PCAP_HEADER_BYTES)) throw new CaptureError("its header is cut off");
    this.#pcap = {
      isEthernet: (this.#u32(20) & 0xffff) === LINKTYPE_ETHERNET,
      nsPerTick: found === PCAP_NANOSECONDS ? 1 : 1000,
      snapBytes: 0,
    };
    this.#at += PCAP_HEADER_BYTES;
  }

  /** The next frame; `undefined` at the end. Throws CaptureError where the file is damaged. */
  next(): CapturedFrame | undefined {
    return this.#pcap ? this.#nextRecord(this.#pcap) : this.#nextPacket();
  }

  /** Sees to it that the next `bytes` bytes are in the buffer; false if the file ends before. */
  #has(bytes: number): boolean {
    if (this.#end - this.#at >= bytes) return true;
    this.#buffer.copyWithin(0, this.#at, this.#end);
    this.#base += this.#at;
    this.#end -= this.#at;
    this.#at = 0;
    while (this.#end < bytes) {
      const got = this.#read(this.#buffer.subarray(this.#end), this.#base + this.#end);
      if (got === 0) return false;
      this.#end += got;
    }
    return true;
  }

  #u32(offset: number): number {
    return this.#view.getUint32(this.#at + offset, this.#isLittle);
  }

  #u16(offset: number): number {
    return this.#view.getUint16(this.#at + offset, this.#isLittle);
  }

  #fault(what: string): CaptureError {
    return new CaptureError(`at byte ${this.#base + this.#at}: ${what}`);
  }

  #bytes(offset: number, length: number): Uint8Array<ArrayBuffer> {
    return this.#buffer.subarray(this.#at + offset, this.#at + offset + length);
  }

  #nextRecord({ isEthernet, nsPerTick }: CapturedInterface): CapturedFrame | undefined {
    if (!this.#has(1)) return undefined;
    if (!this.#has(PCAP_RECORD_BYTES)) throw this.#fault("a record's header is cut off");
    const kept = this.#u32(8);
    if (kept > BLOCK_BYTES_MAX) throw this.#fault(`a frame of ${kept} bytes`);
    if (!this.#has(PCAP_RECORD_BYTES + kept)) throw this.#fault("a frame is cut off");
    const ns = this.#u32(0) * 1e9 + this.#u32(4) * nsPerTick;
    const frame = { bytes: this.#bytes(PCAP_RECORD_BYTES, kept), length: this.#u32(12), ns, isEthernet };
    this.#at += PCAP_RECORD_BYTES + kept;
    return frame;
  }

  #nextPacket(): CapturedFrame | undefined {
    for (;;) {
      if (!this.#has(1)) return undefined;
      if (!this.#has(12)) throw this.#fault("a block is cut off");
      // The type of a section header reads the same in both orders; what follows says which one it is.
      const isSection = this.#view.getUint32(this.#at, true) === SECTION_HEADER;
      if (isSection) this.#beginSection();
      const length = this.#u32(4);
      if (length < 12 || length % 4 !== 0 || length > BLOCK_BYTES_MAX) throw this.#fault(`a block of ${length} bytes`);
      if (!this.#has(length)) throw this.#fault("a block is cut off");
      if (this.#u32(length - 4) !== length) throw this.#fault("a block's two lengths differ");
      const frame = isSection ? undefined : this.#block(this.#u32(0), length);
      this.#at += length;
      if (frame) return frame;
    }
  }

  #beginSection(): void {
    const magic = this.#view.getUint32(this.#at + 8, true);
    this.#isLittle = magic === BYTE_ORDER_MAGIC;
    if (!this.#isLittle && this.#view.getUint32(this.#at + 8, false) !== BYTE_ORDER_MAGIC) {
      throw this.#fault("a section of no byte order");
    }
    this.#interfaces = [];
  }

  /** A block that is whole: a frame, if it has one. */
  #block(type: number, length: number): CapturedFrame | undefined {
    if (type === INTERFACE) this.#addInterface(length);
    if (type === ENHANCED_PACKET || type === PACKET) return this.#packet(type, length);
    if (type === SIMPLE_PACKET) return this.#simplePacket(length);
    return undefined;
  }

  #addInterface(length: number): void {
    if (length < 20) throw this.#fault("an interface without a type");
    let nsPerTick = 1000;
    for (let at = 16; at + 4 <= length - 4;) {
      const [code, bytes] = [this.#u16(at), this.#u16(at + 2)];
      if (code === OPT_END) break;
      // §4.2: a power of 10, or of 2 if the highest bit is set.
      const exponent = this.#view.getUint8(this.#at + at + 4);
      if (code === OPT_IF_TSRESOL && bytes >= 1) {
        nsPerTick = 1e9 / (exponent & 0x80 ? 2 ** (exponent & 0x7f) : 10 ** exponent);
      }
      at += 4 + Math.ceil(bytes / 4) * 4;
    }
    this.#interfaces.push({ isEthernet: this.#u16(8) === LINKTYPE_ETHERNET, nsPerTick, snapBytes: this.#u32(12) });
  }

  #packet(type: number, length: number): CapturedFrame {
    if (length < 32) throw this.#fault("a packet without its lengths");
    const from = this.#interfaces[type === PACKET ? this.#u16(8) : this.#u32(8)];
    if (!from) throw this.#fault("a packet of an interface that was not described");
    const kept = this.#u32(20);
    if (kept > length - 32) throw this.#fault("a packet that is longer than its block");
    const ns = (this.#u32(12) * 2 ** 32 + this.#u32(16)) * from.nsPerTick;
    return { bytes: this.#bytes(28, kept), length: this.#u32(24), ns, isEthernet: from.isEthernet };
  }

  #simplePacket(length: number): CapturedFrame {
    const from = this.#interfaces[0];
    if (!from) throw this.#fault("a packet of an interface that was not described");
    const whole = this.#u32(8);
    const kept = Math.min(whole, length - 16, from.snapBytes === 0 ? Infinity : from.snapBytes);
    return { bytes: this.#bytes(12, kept), length: whole, ns: 0, isEthernet: from.isEthernet };
  }
}
