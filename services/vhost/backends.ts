/** Which backend serves a port's rings on which path. */
import { DirectBackend } from "./direct_backend.ts";
import { EmulatedBackend } from "./emulated_backend.ts";
import type { Emulation } from "./emulation.ts";
import { NicClient } from "./nic_client.ts";
import type { PortContext } from "./port_context.ts";
import { isDirectPath, type RingBackend, type RingBackendEvents, type RingPath } from "./ring_backend.ts";
import { SwitchBackend } from "./switch_backend.ts";

/** Makes the backend of a path; none where the guest drives its VF by itself. */
export function makeBackend(
  emulation: Emulation,
  context: PortContext,
  path: RingPath,
  events: RingBackendEvents,
): RingBackend | undefined {
  const { name } = context;
  if (path === "guest") return undefined;
  if (typeof name === "string" && name !== "uplink") {
    return new SwitchBackend(emulation, context, events, Number(name.slice("vport".length)));
  }
  if (isDirectPath(path)) return new DirectBackend(emulation, context, events, path);
  return path === "emulated" ? new EmulatedBackend(emulation, context, events) : new NicClient(context, events);
}
