/** The link of an interface as a port shows it. */
import type { Interfaces, InterfaceState } from "../os/mod.ts";
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

/** How Ethernet interface `name` is, for whoever wants to do `what` on it. Throws if there is none. */
export function ethernetOf(interfaces: Interfaces, name: string, what: string): InterfaceState {
  const state = interfaces.state(name);
  if (!state) throw new Error(`Cannot ${what} on ${name}: there is no such interface`);
  if (!state.isEthernet) {
    throw new Error(
      `Cannot ${what} on ${name}: its frames are not Ethernet's; name an interface whose are, such as eth0`,
    );
  }
  return state;
}
