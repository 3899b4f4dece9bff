/** A pool's packet buffer in a rig: the arena is a window behind the guests' memory. */
import { CTL, CTL_GENERATION } from "../../shared/layout/nic.ts";
import { PoolBuffer } from "../../shared/engine/packet_buffer.ts";
import type { Arena } from "../../shared/os/mod.ts";
import { EngineRig } from "./engine_rig.ts";

const SLOT = 16;
const STATE_BYTES = 0x40000;

/** Where it lies, and a packet buffer for `pool` that the pool has once it is given. */
export interface RigBuffer {
  window: number;
  buffer: PoolBuffer;
  /** How often its memory was given back. */
  released(): number;
}

/** A packet buffer for a pool of the rig. `between`: told before and after what the engine stands still for. */
export function rigBuffer(
  rig: EngineRig,
  pool: number,
  between: { before?: () => void; after?: () => void } = {},
): RigBuffer {
  const window = EngineRig.guestOffset(SLOT);
  new Uint8Array(rig.view.buffer, window, STATE_BYTES).fill(0);
  let released = 0;
  const arena = { allocateOwn: (bytes: number) => ({ offset: window, bytes }), releaseOwn: () => released++ };
  const engine = {
    arena: arena as unknown as Arena,
    view: rig.view,
    wasm: rig.wasm,
    between: <T>(change: () => T): T => {
      between.before?.();
      const result = change();
      rig.view.setUint32(CTL + CTL_GENERATION, rig.view.getUint32(CTL + CTL_GENERATION, true) + 1, true);
      between.after?.();
      return result;
    },
  };
  return { window, buffer: new PoolBuffer(engine, pool), released: () => released };
}
