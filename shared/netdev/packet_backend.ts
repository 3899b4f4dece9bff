/** A packet socket behind a port: any Ethernet interface of the host is the fabric's line to the outside. */
import { type Fd, Interfaces, openPacketSocket, packetSocketDrops } from "../os/mod.ts";
import type { Backend, Drive, Link } from "./backend.ts";
import { OFFLOAD_FEATURES } from "./features.ts";
import { ethernetOf, linkOf } from "./link.ts";

/** An open packet socket. */
export class PacketBackend implements Backend {
  readonly name: string;
  readonly interface: string;
  readonly #drive: Drive;
  readonly features = OFFLOAD_FEATURES;
  readonly #fd: Fd;
  readonly #interfaces = new Interfaces();
  readonly #index: number;
  #drops = 0;

  /** Opens one on interface `name`. Throws what to do if it cannot be. */
  constructor(name: string) {
    this.name = `packet ${name}`;
    this.interface = name;
    try {
      const { index } = ethernetOf(this.#interfaces, name, "open a packet socket");
      this.#index = index;
      this.#fd = openPacketSocket(name, index);
    } catch (error) {
      this.#interfaces.close();
      throw error;
    }
    this.#drive = { kind: "messages", file: this.#fd.number };
  }

  /** The kernel hands frames over as they are: what the NIC does not finish of them it refuses, and counts. */
  accept(): void {}

  open(): Drive {
    return this.#drive;
  }

  /** Another interface of the same name is not the one that the socket is on. */
  link(): Link | undefined {
    const state = this.#interfaces.state(this.interface);
    return state?.index === this.#index ? linkOf(state, this.interface) : undefined;
  }

  kernelDrops(): Record<string, number> {
    this.#drops += packetSocketDrops(this.#fd.number);
    return { in_kernel_drops: this.#drops };
  }

  close(): void {
    this.#fd.close();
    this.#interfaces.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
