/**
 * Memory that nobody may touch: ranges of a rig's arena without any access. A load or store there ends the process at once
 * (SIGSEGV), also one that reads, which no canary tells of.
 */
import { addressOf, check, libc } from "../../shared/os/libc.ts";

const PROT_NONE = 0;
const PROT_READ_WRITE = 3;

/** A range of bytes: whole pages. */
export type Range = readonly [from: number, to: number];

/** What lies between some ranges of pages, from `from` to `to`. */
export function between(ranges: readonly Range[], [from, to]: Range): Range[] {
  const gaps: Range[] = [];
  let at = from;
  for (const [begin, end] of ranges.toSorted((a, b) => a[0] - b[0])) {
    if (begin > at) gaps.push([at, begin]);
    at = Math.max(at, end);
  }
  if (at < to) gaps.push([at, to]);
  return gaps;
}

/** Forbids ranges of `view`'s memory until it is disposed. */
export class Forbidden implements Disposable {
  readonly #base: bigint;
  readonly #ranges: readonly Range[];

  constructor(view: DataView, ranges: readonly Range[]) {
    this.#base = addressOf(new Uint8Array(view.buffer));
    this.#ranges = ranges;
    this.#protect(PROT_NONE);
  }

  #protect(how: number): void {
    for (const [from, to] of this.#ranges) {
      check(libc().mprotect(this.#base + BigInt(from), BigInt(to - from), how), "mprotect", `bytes ${from}–${to}`);
    }
  }

  [Symbol.dispose](): void {
    this.#protect(PROT_READ_WRITE);
  }
}
