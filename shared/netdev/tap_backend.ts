/** A TAP behind a port: the host's programs have the other end as an interface, in whatever network namespace it is. */
import { inNamespace, Interfaces, type InterfaceState, OsError, Tap } from "../os/mod.ts";
import { EPERM } from "../os/libc.ts";
import type { Backend, Drive, Link } from "./backend.ts";
import { OFFLOAD_FEATURES, tapOffloads } from "./features.ts";
import { linkOf } from "./link.ts";

/** What a TAP is to be like. */
export interface TapOptions {
  name: string;
  /** Where its network namespace is; `undefined`: this process's own. */
  namespace?: string | undefined;
  /** Its MAC address if it is made; else it is one that nobody has chosen. */
  mac?: string | undefined;
}

/** An open TAP. */
export class TapBackend implements Backend {
  readonly name: string;
  readonly interface: string;
  readonly #drive: Drive;
  readonly features = OFFLOAD_FEATURES;
  /** The interfaces of the TAP's namespace. */
  #interfaces: Interfaces;
  readonly #tap: Tap;

  /** Opens it, and makes it if it is not there. Throws what to do. */
  constructor({ name, namespace, mac }: TapOptions) {
    const { tap, interfaces, isNew } = inNamespace(namespace, () => {
      const interfaces = new Interfaces();
      try {
        const isNew = interfaces.state(name) === undefined;
        return { interfaces, isNew, tap: Tap.open(name) };
      } catch (error) {
        interfaces.close();
        throw error;
      }
    });
    this.#tap = tap;
    this.#interfaces = interfaces;
    try {
      if (isNew && mac !== undefined) interfaces.setMac(name, mac);
    } catch (error) {
      this.close();
      throw error;
    }
    this.interface = name;
    this.name = `tap ${name}`;
    this.#drive = { kind: "frames", file: tap.fd.number };
  }

  accept(features: bigint): void {
    this.#tap.setOffload(tapOffloads(features));
  }

  /** Switches the interface on. Who has no right to that leaves it as it is: its state says what to do. */
  switchOn(): void {
    try {
      this.#interfaces.setUp(this.interface);
    } catch (error) {
      if (!isForbidden(error)) throw error;
    }
  }

  /** Gives the interface an address of `bytes` in a network of `bits` bits; `text` is both, for people. */
  setAddress(bytes: readonly number[], bits: number, text: string): void {
    try {
      this.#interfaces.addAddress(this.interface, bytes, bits);
    } catch (cause) {
      if (!isForbidden(cause)) throw cause;
      const command = `ip address add ${text} dev ${this.interface}`;
      throw new Error(
        `Cannot give ${this.interface} an address: this needs CAP_NET_ADMIN; do it beforehand: ${command}`,
        {
          cause,
        },
      );
    }
  }

  /** Gives the interface another MAC address, and another MTU. */
  setLink({ mac, mtu }: { mac: string; mtu: number }): void {
    this.#interfaces.setMac(this.interface, mac);
    this.#interfaces.setMtu(this.interface, mtu);
  }

  /** Says whether the interface has a carrier. */
  setCarrier(on: boolean): void {
    this.#tap.setCarrier(on);
  }

  open(): Drive {
    return this.#drive;
  }

  link(): Link | undefined {
    const name = this.#tap.interface;
    if (name === undefined) return undefined;
    const state = this.#interfaces.state(name) ?? this.#follow(name);
    return linkOf(state, name) ?? { isUp: true, reason: `${name} is in a namespace that cannot be looked into` };
  }

  /** Somebody has put the interface into another namespace; its file works on. */
  #follow(name: string): InterfaceState | undefined {
    try {
      using namespace = this.#tap.namespace();
      const moved = inNamespace(`/proc/self/fd/${namespace.number}`, () => new Interfaces());
      this.#interfaces.close();
      this.#interfaces = moved;
      return moved.state(name);
    } catch {
      // Not with these rights.
      return undefined;
    }
  }

  kernelDrops(): Record<string, number> {
    return {};
  }

  close(): void {
    this.#tap.close();
    this.#interfaces.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function isForbidden(error: unknown): boolean {
  return error instanceof OsError && error.errno === EPERM;
}
