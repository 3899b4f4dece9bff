/** MAC addresses and pools as the API names them, and as the engine has them. */
import { POOL_PF, POOL_UPLINK } from "../layout/nic.ts";
import type { Filter } from "../api/nic.ts";

/** MAC text to the number a little-endian load of a frame gives. */
export function macToNumber(mac: string): bigint {
  return mac.split(":").reduceRight((n, byte) => (n << 8n) | BigInt(parseInt(byte, 16)), 0n);
}

/** The inverse of `macToNumber`. */
export function macFromNumber(n: bigint): string {
  return Array.from({ length: 6 }, (_, i) => Number((n >> BigInt(8 * i)) & 0xffn).toString(16).padStart(2, "0")).join(
    ":",
  );
}

/** A pool as the API names it. */
export function poolName(pool: number): Filter["pool"] {
  return pool === POOL_PF ? "pf" : pool === POOL_UPLINK ? "uplink" : pool;
}
