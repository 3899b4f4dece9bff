/**
 * Reading and writing Wasm's binary format (WebAssembly core specification §5.2). Whatever is copied is written with
 * the shortest encoding of every number, so that a module has one form: what the writer makes of it.
 */
import { PluginRejected } from "./rejected.ts";

const CONTINUES = 0x80;
/** Bytes that an integer of 32 and of 64 bits may take. */
const LEB32_BYTES_MAX = 5;
const LEB64_BYTES_MAX = 10;

/** A module's bytes as they are written, section by section. */
export class Writer {
  readonly bytes: number[] = [];

  /** One byte. */
  byte(n: number): void {
    this.bytes.push(n);
  }

  /** Some bytes as they are. */
  raw(bytes: Iterable<number>): void {
    for (const byte of bytes) this.bytes.push(byte);
  }

  /** An unsigned number of 32 bits. */
  u32(n: number): void {
    do {
      this.bytes.push((n & 0x7f) | (n > 0x7f ? CONTINUES : 0));
      n >>>= 7;
    } while (n > 0);
  }

  /** The length of `bytes`, then `bytes`. */
  sized(bytes: ArrayLike<number> & Iterable<number>): void {
    this.u32(bytes.length);
    this.raw(bytes);
  }
}

/** A position in a module's bytes. Reading beyond the end throws PluginRejected `not-wasm`. */
export class Reader {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  #at: number;
  readonly #end: number;

  constructor(bytes: Uint8Array<ArrayBuffer>, at = 0, end = bytes.length) {
    this.#bytes = bytes;
    this.#at = at;
    this.#end = end;
  }

  get at(): number {
    return this.#at;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** The next byte. */
  byte(): number {
    if (this.#at >= this.#end) throw new PluginRejected("not-wasm", "the image is cut off");
    return this.#bytes[this.#at++] as number;
  }

  /** The next `count` bytes. */
  take(count: number): Uint8Array<ArrayBuffer> {
    if (count > this.#end - this.#at) throw new PluginRejected("not-wasm", "the image is cut off");
    return this.#bytes.subarray(this.#at, this.#at += count);
  }

  /** A reader of the next `count` bytes alone. */
  part(count: number): Reader {
    const from = this.#at;
    this.take(count);
    return new Reader(this.#bytes, from, this.#at);
  }

  /** Everything up to the end. */
  rest(): Uint8Array<ArrayBuffer> {
    return this.take(this.#end - this.#at);
  }

  /** An unsigned number of 32 bits, in whatever length it is encoded. */
  u32(): number {
    let value = 0;
    for (const [i, byte] of this.#leb(LEB32_BYTES_MAX).entries()) value += (byte & 0x7f) * 2 ** (7 * i);
    if (value > 0xffff_ffff) throw new PluginRejected("not-wasm", "a number of the image has more than 32 bits");
    return value;
  }

  /** As `u32`; throws PluginRejected `too-complex`, naming what there is too much of, if it is larger than `most`. */
  count(most: number, what: string): number {
    const n = this.u32();
    if (n > most) throw new PluginRejected("too-complex", `the image has ${n} ${what}: at most ${most}`);
    return n;
  }

  /** A signed number of 32 or 64 bits, in its shortest encoding. */
  signed(bits: 32 | 64): number[] {
    const leb = this.#leb(bits === 32 ? LEB32_BYTES_MAX : LEB64_BYTES_MAX);
    for (;;) {
      const [before = 0, last = 0] = leb.slice(-2);
      const repeatsSign = (before & 0x40) === 0 ? last === 0 : last === 0x7f;
      if (leb.length < 2 || !repeatsSign) return leb;
      leb.pop();
      leb[leb.length - 1] = before & 0x7f;
    }
  }

  #leb(bytesMax: number): number[] {
    const bytes: number[] = [];
    for (;;) {
      const byte = this.byte();
      bytes.push(byte);
      if ((byte & CONTINUES) === 0) return bytes;
      if (bytes.length === bytesMax) throw new PluginRejected("not-wasm", "a number of the image does not end");
    }
  }
}
