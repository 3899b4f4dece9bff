/** Comparing memory in one native call: tests look at megabytes, again and again. */
import { Buffer } from "node:buffer";

/** Whether both are as long and hold the same. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}
