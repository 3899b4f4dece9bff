/**
 * Copying frame bytes. A copy of up to a frame is a loop of 16-byte moves, since `memory.copy` is a call out of
 * compiled code; beyond that the C library's moves win. The last 16 bytes are copied as one move that may overlap the
 * one before: if the source changes meanwhile the bytes come from different moments, which is its owner's own doing.
 */

const COPY_INLINE_MAX: u32 = 512;

/** Copies `n` bytes. Source and destination may be in shared memory; they do not overlap. */
@inline
export function copyBytes(dst: usize, src: usize, n: u32): void {
  if (n > COPY_INLINE_MAX) memory.copy(dst, src, n);
  else if (n >= 16) copyMoves(dst, src, n);
  else copyFew(dst, src, n);
}

/** 16 bytes or more: in blocks of 64, and what is left with moves of which the last ends at the end. */
@inline
function copyMoves(dst: usize, src: usize, n: u32): void {
  let i: u32 = 0;
  for (; i + 64 < n; i += 64) {
    v128.store(dst + i, v128.load(src + i));
    v128.store(dst + i, v128.load(src + i, 16), 16);
    v128.store(dst + i, v128.load(src + i, 32), 32);
    v128.store(dst + i, v128.load(src + i, 48), 48);
  }
  const end = n - 16;
  if (i < end) {
    v128.store(dst + i, v128.load(src + i));
    if (i + 16 < end) {
      v128.store(dst + i, v128.load(src + i, 16), 16);
      if (i + 32 < end) v128.store(dst + i, v128.load(src + i, 32), 32);
    }
  }
  v128.store(dst + end, v128.load(src + end));
}

/** Fewer than 16 bytes. */
function copyFew(dst: usize, src: usize, n: u32): void {
  let i: u32 = 0;
  if (n & 8) {
    store<u64>(dst, load<u64>(src));
    i = 8;
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
