/**
 * Copying frame bytes. `memory.copy` is a call out of compiled code; up to a few hundred bytes a loop of 16-byte moves
 * is quicker, beyond that the C library's moves are meant to win.
 */

/** Copies `n` bytes, touching each source byte once where `n` < 16. Source and destination may be in shared memory. */
@inline
export function copyBytes(dst: usize, src: usize, n: u32): void {
  if (n <= COPY_INLINE_MAX) copyShort(dst, src, n);
  else memory.copy(dst, src, n);
}

const COPY_INLINE_MAX: u32 = 512;

@inline
function copyShort(dst: usize, src: usize, n: u32): void {
  let i: u32 = 0;
  for (; i + 16 <= n; i += 16) v128.store(dst + i, v128.load(src + i));
  if (n & 15) {
    if (n & 8) {
      store<u64>(dst + i, load<u64>(src + i));
      i += 8;
    }
    if (n & 4) {
      store<u32>(dst + i, load<u32>(src + i));
      i += 4;
    }
    if (n & 2) {
      store<u16>(dst + i, load<u16>(src + i));
      i += 2;
    }
    if (n & 1) store<u8>(dst + i, load<u8>(src + i));
  }
}
