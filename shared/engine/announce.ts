/** Announcements of addresses, by whichever engine has the pool. */
import type { Engine } from "./engine.ts";
import { macToNumber } from "./names.ts";

/** Has the engine send a frame of `pool` that announces `mac` to everybody in the pool's VLAN. */
export function announce(engine: Pick<Engine, "between" | "wasm">, pool: number, mac: string): void {
  engine.between(() => engine.wasm.announce(pool, macToNumber(mac)));
}
