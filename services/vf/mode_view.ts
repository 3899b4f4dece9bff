/** What is known of a port's path, and what of a mode is told. */
import type { ModeEvent, PortState, VfMode } from "../../shared/api/mod.ts";

/** How a port's rings are served, by vhost's word. */
export type PathState = Pick<PortState, "dataPath" | "emulatedPath" | "session">;

/** What of a mode is told to whoever listens. */
export function toldOf({ mode, plugin, dataPath }: Partial<VfMode>): Partial<Omit<ModeEvent, "type" | "port">> {
  return {
    ...(mode === undefined ? {} : { mode }),
    ...(plugin === undefined ? {} : { plugin }),
    ...(dataPath === undefined ? {} : { dataPath }),
  };
}
