/**
 * All ports: one for each VF that the NIC has, and the uplink's. The NIC says how many there are, so a port appears
 * when the PF adds a VF. Roles that were changed are kept in a file, so that a restart does not forget them.
 */
import { DeviceClient } from "../../shared/device/mod.ts";
import { log } from "../../shared/api/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import { Port, type PortConfig, type PortState } from "./port.ts";

const RECONNECT_MS = 200;

/** Settings of the vhost service. */
export interface PortsOptions {
  deviceSocket: string;
  runDir: string;
  reactor: Reactor;
}

/** A VF's number, or the uplink. */
export type PortName = number | "uplink";

/** The ports of all VFs. */
export class Ports {
  readonly #options: PortsOptions;
  readonly #ports = new Map<PortName, Port>();
  #roles: Record<string, PortConfig> = {};
  #watch: DeviceClient | undefined;
  #closed = false;
  #work: Promise<void> = Promise.resolve();
  /** Whether the NIC has been heard since the last connection to it. */
  ready = false;

  constructor(options: PortsOptions) {
    this.#options = options;
    try {
      this.#roles = JSON.parse(Deno.readTextFileSync(this.#rolesFile)) as Record<string, PortConfig>;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }

  get #rolesFile(): string {
    return `${this.#options.runDir}/vhost-ports.json`;
  }

  /** Follows the NIC until `close`. */
  async follow(): Promise<void> {
    while (!this.#closed) {
      try {
        const watch = DeviceClient.connect(this.#options.deviceSocket, this.#options.reactor);
        this.#watch = watch;
        watch.onEvent = (event) => {
          if (event.event === "vfs") this.#enqueue(() => this.#resize(event.count));
        };
        await watch.request({ op: "watch" });
        await watch.closed;
      } catch {
        // The NIC is not there (yet): try again.
      }
      this.ready = false;
      if (!this.#closed) await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }

  /** Changes of the set of ports happen one after the other. */
  #enqueue(step: () => Promise<void>): Promise<void> {
    const done = this.#work.then(step);
    this.#work = done.catch((error) => log("error", "vhost", error instanceof Error ? error.message : String(error)));
    return done;
  }

  async #resize(count: number): Promise<void> {
    // A NIC that has just started has no VFs until the PF programs it: guests that wait keep their ports.
    if (count === 0 && this.#ports.size > 0) return;
    for (const [name, port] of [...this.#ports]) {
      if (typeof name !== "number" || name < count) continue;
      this.#ports.delete(name);
      await port.close();
    }
    const names: PortName[] = count > 0 ? [...Array(count).keys(), "uplink"] : [];
    let failed = 0;
    for (const name of names) {
      try {
        this.#open(name);
      } catch (error) {
        failed++;
        log("error", "vhost", `vf ${name}: ${error instanceof Error ? error.message : error}`);
      }
    }
    this.ready = count > 0 && failed === 0;
  }

  #defaultConfig(name: PortName): PortConfig {
    const file = name === "uplink" ? "uplink.sock" : `vf${name}.sock`;
    return { role: "server", path: `${this.#options.runDir}/${file}` };
  }

  #open(name: PortName): void {
    if (this.#closed || this.#ports.has(name)) return;
    const label = name === "uplink" ? "uplink" : `vf ${name}`;
    const context = {
      vf: name,
      deviceSocket: this.#options.deviceSocket,
      reactor: this.#options.reactor,
      log: (level: "info" | "warn", message: string) => log(level, "vhost", `${label}: ${message}`),
    };
    this.#ports.set(name, new Port(context, this.#roles[String(name)] ?? this.#defaultConfig(name)));
  }

  get states(): PortState[] {
    return [...this.#ports.values()].map((port) => port.state);
  }

  state(name: PortName): PortState | undefined {
    return this.#ports.get(name)?.state;
  }

  /** Lets a port listen (role server) or connect to a front-end that listens (role client, with its path). */
  async configure(name: PortName, role: PortConfig["role"], path: string | undefined): Promise<PortState> {
    await this.#enqueue(async () => {
      const config = role === "server" ? this.#defaultConfig(name) : { role, path: path ?? "" };
      if (role === "server") delete this.#roles[String(name)];
      else this.#roles[String(name)] = config;
      await Deno.writeTextFile(`${this.#rolesFile}.new`, JSON.stringify(this.#roles));
      await Deno.rename(`${this.#rolesFile}.new`, this.#rolesFile);
      await this.#ports.get(name)?.close();
      this.#ports.delete(name);
      this.#open(name);
    });
    return this.state(name) as PortState;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watch?.close();
    await this.#work;
    for (const port of this.#ports.values()) await port.close();
  }
}
