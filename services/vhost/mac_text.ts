/** Addresses of the wire as text. */

/** Whether an address can be somebody's own: it is neither a group's nor zero. */
export function isOwnAddress(mac: string): boolean {
  return (parseInt(mac.slice(0, 2), 16) & 1) === 0 && /[1-9a-f]/.test(mac);
}

/** An address as text. */
export function macText(bytes: Iterable<number>): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}
