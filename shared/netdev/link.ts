/** The link of an interface as a port shows it. */
import type { InterfaceState } from "../os/mod.ts";
import type { Link } from "./backend.ts";

/** How an interface is, in words of what to do if it is down; `undefined`: it is gone. */
export function linkOf(state: InterfaceState | undefined, name: string): Link | undefined {
  if (!state) return undefined;
  const { isUp, isRunning, mtu, mac } = state;
  const reason = !isUp
    ? `${name} is switched off: ip link set ${name} up`
    : isRunning
    ? undefined
    : `${name} has no carrier`;
  return { isUp: reason === undefined, ...(reason === undefined ? {} : { reason }), mtu, mac };
}
