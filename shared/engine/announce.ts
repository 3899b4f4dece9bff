/** Announcements of addresses, by whichever engine has the pool. */
import { QUEUE_STRIDE, QUEUES, QUEUES_PER_POOL } from "../layout/nic.ts";
import type { Engine } from "./engine.ts";
import type { EngineExports } from "./engine_worker.ts";

interface AnnounceExports extends EngineExports {
  announce(pool: number, queue: number, mac: bigint): void;
}

/** Has the engine send a frame of `pool` that announces `mac` to everybody in the pool's VLAN. */
export function announce(engine: Pick<Engine<AnnounceExports>, "between" | "wasm">, pool: number, mac: string): void {
  const transmit = QUEUES + (pool * QUEUES_PER_POOL + 1) * QUEUE_STRIDE;
  const bytes = mac.split(":").map((byte) => BigInt(`0x${byte}`));
  const number = bytes.reduce((sum, byte, i) => sum | (byte << BigInt(8 * i)), 0n);
  engine.between(() => engine.wasm.announce(pool, transmit, number));
}
