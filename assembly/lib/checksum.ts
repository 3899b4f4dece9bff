/**
 * The Internet checksum (RFC 1071), summed in whatever order the machine loads words. What was written a moment ago is
 * not read again to be summed: such a read waits until the stores before it have the lines that another CPU last had.
 * It is summed as it is written (`sumOf`).
 */

/** A word as a term of a sum. */
@inline
export function sumOf(word: u64): u64 {
  return (word & 0xffffffff) + (word >> 32);
}

/** Four 32-bit sums as one. */
@inline
export function sumOfLanes(sums: v128): u64 {
  const two = i64x2.add(i64x2.extend_low_i32x4_u(sums), i64x2.extend_high_i32x4_u(sums));
  return v128.extract_lane<u64>(two, 0) + v128.extract_lane<u64>(two, 1);
}

/** Adds `n` bytes at `at` to a sum. */
export function sum(at: usize, n: u32, start: u64): u64 {
  let s = start;
  let i: u32 = 0;
  if (n >= 32) {
    // Pairs of 16-bit words into 32-bit sums, which no packet (64 KiB) is long enough to overflow.
    let a = i32x4.splat(0);
    let b = i32x4.splat(0);
    for (; i + 64 <= n; i += 64) {
      a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(v128.load(at + i)));
      b = i32x4.add(b, i32x4.extadd_pairwise_i16x8_u(v128.load(at + i, 16)));
      a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(v128.load(at + i, 32)));
      b = i32x4.add(b, i32x4.extadd_pairwise_i16x8_u(v128.load(at + i, 48)));
    }
    for (; i + 16 <= n; i += 16) a = i32x4.add(a, i32x4.extadd_pairwise_i16x8_u(v128.load(at + i)));
    s += sumOfLanes(a) + sumOfLanes(b);
  }
  for (; i + 8 <= n; i += 8) {
    s += sumOf(load<u64>(at + i));
  }
  if (n & 4) {
    s += load<u32>(at + i);
    i += 4;
  }
  if (n & 2) {
    s += load<u16>(at + i);
    i += 2;
  }
  if (n & 1) s += load<u8>(at + i);
  return s;
}

/** The checksum of a sum, as it is stored. */
@inline
export function fold(s: u64): u32 {
  let x = (s & 0xffffffff) + (s >> 32);
  x = (x & 0xffff) + (x >> 16);
  x = (x & 0xffff) + (x >> 16);
  x = (x & 0xffff) + (x >> 16);
  return <u32> (x ^ 0xffff) & 0xffff;
}
