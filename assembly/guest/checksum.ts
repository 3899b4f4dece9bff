/** The Internet checksum (RFC 1071), summed in whatever order the machine loads words. */

/** Adds `n` bytes at `at` to a sum. */
export function sum(at: usize, n: u32, start: u64): u64 {
  let s = start;
  let i: u32 = 0;
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
