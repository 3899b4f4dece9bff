/** Waits until nothing is on its way in a driver pair. */
import type { SwitchExports } from "./exports.ts";

const DEADLINE_MS = 2000;
const RECEIVE_DEADLINE_MS = 300;
const PAUSE_MS = 1;

/**
 * Waits until the NIC has taken what was sent, and the guest what was received, as long as the pair is attached. Throws if
 * the NIC does not (its transmit rate is limited, say); a guest that does not take its frames loses them, as it would on a
 * cable.
 */
export async function drainPair(
  wasm: Pick<SwitchExports, "isDriverTxEmpty" | "hasWork">,
  { rx, tx }: { rx: number; tx: number },
  isAttached: () => boolean,
): Promise<void> {
  const start = performance.now();
  while (isAttached() && !wasm.isDriverTxEmpty(tx)) {
    if (performance.now() - start > DEADLINE_MS) {
      throw new Error(`the VF's transmit queue did not run empty within ${DEADLINE_MS} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  while (isAttached() && wasm.hasWork(rx) && performance.now() - start < RECEIVE_DEADLINE_MS) {
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}
