/** Random numbers that a seed repeats (mulberry32), with a taste for the values that break things. */
import { madeBytes } from "../support/made_bytes.ts";

/** A seeded source of numbers. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number from 0 to n-1. */
  below(n: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  }

  chance(oneIn: number): boolean {
    return this.below(oneIn) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    return madeBytes(length, () => this.below(256));
  }

  /** 64 bits, often near a boundary. */
  u64(): bigint {
    const edge = this.pick([0n, 1n << 16n, 1n << 31n, 1n << 32n, 1n << 47n, 1n << 63n, (1n << 64n) - 1n]);
    const near = BigInt(this.below(5) - 2);
    const any = (BigInt(this.below(2 ** 32)) << 32n) | BigInt(this.below(2 ** 32));
    return BigInt.asUintN(64, this.chance(2) ? edge + near : any);
  }

  /** 16 bits, often near a boundary. */
  u16(): number {
    return this.chance(2)
      ? this.below(65536)
      : (this.pick([0, 1, 63, 64, 128, 255, 256, 32768, 65535]) + this.below(3) - 1) & 0xffff;
  }

  /** 32 bits, often near a boundary. */
  u32(): number {
    if (this.chance(2)) return this.below(4096);
    return (this.pick([0, 12, 14, 64, 1514, 65535, 65536, 2 ** 31, 2 ** 32 - 1]) + this.below(3) - 1) >>> 0;
  }
}
