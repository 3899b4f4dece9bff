/**
 * All ports: one for each VF that the NIC has, the uplink's, and one for each vport. The NIC says how many VFs there are,
 * so a port appears when the PF adds a VF. Roles and data paths that were changed are kept in a file, so that a restart
 * does not forget them.
 */
import { dirname, resolve } from "@std/path";
import { DeviceClient, type DeviceEvent, type VfLink } from "../../shared/device/mod.ts";
import { beforeNextLook, Pace, Turns } from "../../shared/async/mod.ts";
import { ALL_GUESTS_PACE, GUEST_PACE } from "../../shared/engine/mod.ts";
import {
  ApiError,
  type DataPathChange,
  log,
  oneLine,
  type PortState,
  sharePassage,
  shareSocket,
  socketPath,
} from "../../shared/api/mod.ts";
import { Notifier, type Reactor } from "../../shared/os/mod.ts";
import { makeBackend } from "./backends.ts";
import type { Emulation } from "./emulation.ts";
import { Port, type PortConfig } from "./port.ts";
import { pathFault, PortConfigs } from "./port_configs.ts";
import { portLog } from "./port_log.ts";
import { NO_LINK, type PortContext, type PortName } from "./port_context.ts";
import { fdsOf, type Replica, type Replicated, valueOf, type VhostFollower } from "./standby/mod.ts";
import { PipeThreads } from "./wakeups.ts";
import { Wishes } from "./wishes.ts";

function labelOf(name: PortName): string {
  return typeof name === "number" ? `vf ${name}` : name;
}

/** Settings of the vhost service. */
export interface PortsOptions {
  deviceSocket: string;
  runDir: string;
  /** Where front-ends listen that a port may connect to. */
  clientDirs: readonly string[];
  /** Group that may connect to the ports' sockets. */
  socketGroup: number | undefined;
  reactor: Reactor;
  emulation: Emulation;
  /** What a standby is told goes there. */
  replica: Replica;
}

/** The ports of all VFs. */
export class Ports {
  readonly #options: PortsOptions;
  readonly #ports = new Map<PortName, Port>();
  readonly #configs: PortConfigs;
  #watch: DeviceClient | undefined;
  #closed = false;
  readonly #turns = new Turns();
  /** What all ports' front-ends together may ask of engines. */
  readonly #pace = new Pace(ALL_GUESTS_PACE);
  readonly #notifier = new Notifier();
  readonly #links = new Map<PortName, VfLink>();
  readonly #linksObject: Replicated;
  /** What guests wish, for the PF. */
  readonly wishes = new Wishes();
  /** Ports whose rings wait for a new NIC. */
  readonly #recovering = new Set<PortName>();
  /** How many VFs the NIC has; `undefined` while it is away. */
  #vfs: number | undefined;

  constructor(options: PortsOptions) {
    this.#options = options;
    options.emulation.tenants.poolsMax = () => this.#ports.size;
    this.#configs = new PortConfigs(options.runDir);
    this.#linksObject = options.replica.keep("links", () => ({ links: { value: [...this.#links] } }));
  }

  /** Why not every VF's guest can be served now; `undefined` if each can. */
  get unreadiness(): string | undefined {
    if (this.#vfs === undefined) return "the NIC does not answer on its device socket: does it run?";
    if (this.#vfs === 0) return "the NIC has no VFs: has the PF programmed it?";
    const waiting = this.#recovering.size + this.#options.emulation.recovering;
    return waiting > 0 ? `ports that wait for the new NIC: ${waiting}` : undefined;
  }

  /** Begins with what the last service has left. */
  begin(): void {
    this.#configs.read();
  }

  /** Follows the NIC until `close`. */
  async follow(): Promise<void> {
    let sinceMs = performance.now();
    while (!this.#closed) {
      try {
        const watch = DeviceClient.connect(this.#options.deviceSocket, this.#options.reactor);
        this.#watch = watch;
        watch.onEvent = (event) => {
          if (event.event === "vfs") void this.#enqueue(() => this.#resize(event.links.length));
          if (event.event === "vfs") this.#setLinks(event);
        };
        await watch.request({ op: "watch" });
        await watch.closed;
        sinceMs = performance.now();
      } catch {
        // The NIC is not there (yet): try again.
      }
      this.#vfs = undefined;
      if (!this.#closed) await beforeNextLook(sinceMs);
    }
  }

  /** What the PF has set of the VFs and the uplink. */
  #setLinks({ links, uplink }: Extract<DeviceEvent, { event: "vfs" }>): void {
    links.forEach((link, vf) => this.setLink(vf, link));
    // A NIC that has just started knows nothing of its uplink: it keeps what was last said of it, as the VFs do.
    if (links.length > 0 || !this.#links.has("uplink")) this.setLink("uplink", uplink);
  }

  /** What a port's guest sees of it from now on. */
  setLink(name: PortName, link: VfLink): void {
    const before = this.#links.get(name);
    if (JSON.stringify(before) === JSON.stringify(link)) return;
    this.#links.set(name, link);
    this.#linksObject.tell();
    this.#ports.get(name)?.linkChanged();
  }

  /** Changes of the set of ports happen one after the other. */
  #enqueue(step: () => Promise<void>): Promise<void> {
    const done = this.#turns.take(step);
    done.catch((error) => log("error", "vhost", oneLine(error)));
    return done;
  }

  async #resize(count: number): Promise<void> {
    this.#vfs = count;
    // A NIC that has just started has no VFs until the PF programs it: guests that wait keep their ports.
    if (count === 0 && this.#ports.size > 0) return;
    for (const [name, port] of [...this.#ports]) {
      if (typeof name !== "number" || name < count) continue;
      this.#ports.delete(name);
      await port.close();
    }
    const names: PortName[] = count > 0 ? [...Array(count).keys(), "uplink"] : [];
    this.#openAll(names);
  }

  /** Opens ports. One that cannot be opened keeps no other one closed. */
  #openAll(names: readonly PortName[]): void {
    for (const name of names) {
      try {
        this.#open(name);
      } catch (error) {
        log("error", "vhost", `${labelOf(name)} has no port: ${oneLine(error)}`);
      }
    }
  }

  /** Opens and closes ports so that these vports have one each. */
  setVports(ids: readonly number[]): Promise<void> {
    return this.#enqueue(async () => {
      const wanted = new Set<PortName>(ids.map((id) => `vport${id}` as const));
      for (const [name, port] of [...this.#ports]) {
        if (typeof name === "number" || name === "uplink" || wanted.has(name)) continue;
        this.#ports.delete(name);
        await port.close();
      }
      this.#openAll([...wanted]);
    });
  }

  #defaultConfig(name: PortName): PortConfig {
    const port = typeof name === "number" ? `vf${name}` : name;
    const dataPath = port.startsWith("vport") ? "emulated" : "passthrough";
    return { role: "server", path: socketPath(this.#options.runDir, port), dataPath };
  }

  #contextOf(name: PortName): PortContext {
    const { deviceSocket, reactor, emulation, replica } = this.#options;
    const context: PortContext = {
      name,
      ...{ deviceSocket, replica },
      recovers: (isRecovering) => void (isRecovering ? this.#recovering.add(name) : this.#recovering.delete(name)),
      reactor,
      pace: new Pace(GUEST_PACE, this.#pace),
      notifier: this.#notifier,
      pipeThreads: new PipeThreads(),
      log: portLog(labelOf(name)),
      link: () => this.#links.get(name) ?? NO_LINK,
      wish: (wish, stopped) => this.wishes.ask(name, wish, stopped),
      forgetWishes: () => this.wishes.forget(name),
      paused: () => void this.wishes.paused(name),
      announce: (mac) => this.#announce(name, mac),
      makeBackend: (path, events) => makeBackend(emulation, context, path, events),
    };
    return context;
  }

  /** Has the ports of a process that has ended, and their sessions; they are served when `startAll` is called. */
  async adopt(follower: Pick<VhostFollower, "objects">): Promise<void> {
    this.#configs.read(false);
    for (const [, object] of follower.objects("links")) {
      for (const [name, link] of valueOf<[PortName, VfLink][]>(object, "links")) this.#links.set(name, link);
    }
    for (const [, object] of follower.objects("port ")) {
      const { name, config } = valueOf<{ name: PortName; config: PortConfig }>(object, "port");
      this.#add(name, new Port(this.#contextOf(name), config, fdsOf(object, "port")[0]));
    }
    for (const [, object] of follower.objects("session ")) {
      await this.#ports.get(valueOf<PortName>(object, "of"))?.adopt(object);
    }
  }

  /** Serves the ports that were adopted. */
  startAll(): void {
    for (const port of this.#ports.values()) port.start();
  }

  #add(name: PortName, port: Port): void {
    port.onConfig = (config) => void this.#enqueue(() => this.#configs.keep(name, config));
    this.#ports.set(name, port);
  }

  #open(name: PortName): void {
    if (this.#closed || this.#ports.has(name)) return;
    const context = this.#contextOf(name);
    const own = this.#defaultConfig(name);
    const kept = this.#configs.of(name);
    // A server's socket is where this service makes it, whatever an older one has kept.
    const fault = kept?.role === "client" ? pathFault(this.#options.clientDirs, kept.path) : undefined;
    if (fault !== undefined) context.log("warn", `${fault}; the port listens at ${own.path} instead`);
    const isClient = kept?.role === "client" && fault === undefined;
    const config: PortConfig = { ...own, ...kept, ...(isClient ? {} : { role: "server", path: own.path }) };
    const { socketGroup } = this.#options;
    const isServer = config.role === "server";
    if (isServer) Deno.mkdirSync(dirname(config.path), { recursive: true, mode: 0o700 });
    const port = new Port(context, config);
    if (isServer && socketGroup !== undefined) {
      sharePassage(dirname(config.path), socketGroup);
      shareSocket(config.path, socketGroup);
    }
    this.#add(name, port);
    port.start();
  }

  async #announce(name: PortName, mac: string): Promise<void> {
    if (typeof name === "string" && name !== "uplink") {
      return this.#options.emulation.announce(Number(name.slice("vport".length)), mac);
    }
    await this.#watch?.request({ op: "announce", vf: name, mac });
  }

  get states(): PortState[] {
    return [...this.#ports.values()].map((port) => port.state);
  }

  state(name: PortName): PortState | undefined {
    return this.#ports.get(name)?.state;
  }

  /** Lets a port listen (role server) or connect to a front-end that listens (role client, with its path). */
  async configure(name: PortName, role: PortConfig["role"], path: string | undefined): Promise<PortState> {
    const fault = path === undefined ? undefined : pathFault(this.#options.clientDirs, path);
    if (fault !== undefined) throw new ApiError(422, fault, "path", "not-allowed");
    await this.#enqueue(async () => {
      const own = this.#defaultConfig(name);
      const before = this.#ports.get(name)?.config ?? own;
      const config: PortConfig = { ...before, role, path: role === "server" ? own.path : resolve(path ?? "") };
      await this.#configs.keep(name, config);
      await this.#ports.get(name)?.close();
      this.#ports.delete(name);
      this.#open(name);
    });
    return this.state(name) as PortState;
  }

  /** Has another data path serve a VF's rings; throws the reason if it cannot be, with nothing changed. */
  async setDataPath(name: PortName, change: DataPathChange): Promise<PortState> {
    const port = this.#ports.get(name);
    const { dataPath, emulatedPath = "copy" } = change;
    const needsVf = dataPath === "passthrough" || emulatedPath !== "copy";
    if (!port || name === "uplink" || (typeof name === "string" && needsVf)) {
      const what = emulatedPath === "copy" ? dataPath : emulatedPath;
      throw new ApiError(409, `cannot change the data path of ${name} to ${what}: it has no VF's rings`, "port");
    }
    await port.setDataPath(change);
    // It is in force; that a successor may not know of it is said in the log.
    await this.#enqueue(() => this.#configs.keep(name, port.config)).catch(() => {});
    return port.state;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watch?.close();
    await this.#turns.settled;
    for (const port of this.#ports.values()) await port.close();
    this.#notifier.close();
  }
}
