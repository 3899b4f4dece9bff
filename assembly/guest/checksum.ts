/** The Internet checksum (RFC 1071), summed in whatever order the machine loads words. */

/** Adds `n` bytes at `at` to a sum. */
export function sum(at: usize, n: u32, start: u64): u64 {
  let s = start;
  let i: u32 = 0;
  if (n >= 32) {
    // Four 32-bit words at a time, into sums that no packet is long enough to overflow.
    let low = i64x2.splat(0);
    let high = i64x2.splat(0);
    for (; i + 16 <= n; i += 16) {
      const words = v128.load(at + i);
      low = i64x2.add(low, i64x2.extend_low_i32x4_u(words));
      high = i64x2.add(high, i64x2.extend_high_i32x4_u(words));
    }
    const both = i64x2.add(low, high);
    s += v128.extract_lane<u64>(both, 0) + v128.extract_lane<u64>(both, 1);
  }
  for (; i + 8 <= n; i += 8) {
    const word = load<u64>(at + i);
    s += (word & 0xffffffff) + (word >> 32);
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
