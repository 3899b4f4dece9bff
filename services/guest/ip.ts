/** IPv4 addresses as the guest's RAM has them. */

/** IPv4 text as a number. */
export function ipToNumber(text: string): number {
  return text.split(".").reduce((n, part) => n * 256 + Number(part), 0);
}

/** The inverse of `ipToNumber`. */
export function ipFromNumber(n: number): string {
  return [24, 16, 8, 0].map((shift) => (n >>> shift) & 0xff).join(".");
}
