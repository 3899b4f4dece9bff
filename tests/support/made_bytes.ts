/** Bytes by a rule: `Uint8Array.from` asks an array-like for each of them, and takes many times as long. */

/** So many bytes, each as `byteAt` says; of its answer the low 8 bits count. */
export function madeBytes(length: number, byteAt: (i: number) => number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = byteAt(i);
  return bytes;
}
