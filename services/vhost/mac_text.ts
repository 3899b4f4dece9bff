/** Addresses of the wire as text. */

/** An address as text. */
export function macText(bytes: Iterable<number>): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
