/** Addresses of VFs that nobody has set: locally administered, and the same for the same fabric every time. */
import { createHash } from "node:crypto";

/**
 * A locally administered unicast MAC: 02, three bytes of a hash of `seed`, two bytes for the function (VF number, or
 * ff:ff for the PF).
 */
export function deriveMac(seed: string, who: number | "pf"): string {
  const digest = createHash("sha256").update(`ringfabric\0${seed}`).digest();
  const number = who === "pf" ? 0xffff : who;
  const bytes = [0x02, ...digest.subarray(0, 3), number >> 8, number & 0xff];
  return bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(":");
}
