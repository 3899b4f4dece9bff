/**
 * The vf service's modes over peers that the test plays: a PF, a NIC and a vhost service that keep no more than who
 * drives what, and guests' shells that do their part, refuse it, or never answer. Each call can be made to fail. Time is
 * virtual.
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import {
  ApiError,
  type DataPath,
  type LeaseView,
  type ModeRequest,
  msLeft,
  type Problem,
  Restarts,
  type VfMode,
} from "../../shared/api/mod.ts";
import { vfApi } from "../../services/vf/api.ts";
import type { ModeParts, Port } from "../../services/vf/handover.ts";
import { Modes } from "../../services/vf/modes.ts";
import type { StoredImage } from "../../services/vf/registry.ts";
import { type Answer, ask } from "./app.ts";
import { FakeShell, refusal, type ShellWorld, Troubles } from "./fake_shell.ts";
import { VirtualTime } from "./virtual_time.ts";

/** PF, NIC, vhost and guests, and the modes over them. */
export class ModeWorld implements ShellWorld {
  readonly modes: Modes;
  readonly restarts = new Restarts("vf", "the test");
  readonly app: OpenAPIHono;
  readonly time: VirtualTime;
  readonly troubles = new Troubles();
  /** What the peers were asked to change, in order. */
  readonly calls: string[] = [];
  readonly shells = new Map<string, FakeShell>();
  /** What a guest does that has not reported yet and is waited for. */
  firstReport: (port: string) => Promise<void> = () => Promise.resolve();
  readonly images = new Map<string, StoredImage>();
  /** Which rings each VF presents to its guest; `any` where nothing is said. */
  readonly hardware = new Map<number, "advanced" | "virtio">();
  /** vhost: what serves each port's rings. */
  readonly paths = new Map<Port, DataPath>();
  /** The PF: the VF that each vport's guest has. */
  readonly allotted = new Map<string, number | null>();
  /** The NIC: with which hold the guest of each VF came, if a guest drives it. */
  readonly #guestOf = new Map<number, string>();
  /** The NIC: VFs whose frames are held, and by which token a guest may come. */
  readonly holds = new Map<number, { token: string; id: string }>();
  #next = 1;

  constructor(time: VirtualTime) {
    this.time = time;
    for (const [name, version] of [["advanced", "1.0.0"], ["advanced", "2.0.0"], ["virtio", "1.0.0"]] as const) {
      const view = { ...{ name, version, hardware: name, abi: 1, licence: "MIT", bytes: 0, sha256: "", signer: "" } };
      this.images.set(`${name}@${version}`, { view, image: new Uint8Array(1) });
      this.images.set(name, this.images.get(`${name}@${version}`) as StoredImage);
    }
    const find = (port: string) => this.shells.get(port);
    const guests = {
      find,
      findSoon: async (port: string) => {
        if (!find(port)) await this.firstReport(port);
        return find(port);
      },
    };
    const registry = {
      find: (wanted: string) => {
        const image = this.images.get(wanted);
        return image ? Promise.resolve(image) : Promise.reject(refusal("unknown-plugin", 404));
      },
    };
    this.modes = new Modes({ peers: this.#peers(), guests, registry });
    const none = () => Promise.reject(new Error("not in this world"));
    this.app = vfApi({
      registry: { ...registry, list: [], trust: { keys: [] }, add: none, remove: none },
      guests: { list: [], viewSoon: none, isOwnToken: () => false, report: none, wish: none },
      unreadiness: () => Promise.resolve(undefined),
      restarts: this.restarts,
      modes: this.modes,
    }, undefined);
  }

  /** A port whose rings vhost serves; a vport's guest has no VF. With a shell unless it is said otherwise. */
  port(port: Port, { path = "emulated" as DataPath, shell = true } = {}): FakeShell {
    this.paths.set(port, path);
    if (typeof port === "string") this.allotted.set(port, null);
    const guest = new FakeShell(this);
    if (shell) this.shells.set(String(port), guest);
    return guest;
  }

  /** A port whose guest has gone over to its VF, and nothing else has been asked of anybody. */
  async driven(port: Port, plugin = "advanced"): Promise<FakeShell> {
    const guest = this.port(port);
    await this.time.run(this.modes.set(port, { mode: "passthrough", plugin }));
    for (const list of [this.calls, guest.asked, guest.givenMs]) list.length = 0;
    return guest;
  }

  attachGuest(vf: number, token: string): void {
    const hold = this.holds.get(vf);
    if (hold?.token !== token) throw refusal("bad-token");
    this.#guestOf.set(vf, hold.id);
    this.holds.delete(vf);
  }

  detachGuest(vf: number): void {
    this.#guestOf.delete(vf);
  }

  /** Who drives a VF, by the NIC's word. */
  driverOf(vf: number): LeaseView["driver"] {
    if (this.#guestOf.has(vf)) return "guest";
    return (this.paths.get(vf) ?? "guest") === "guest" ? "nobody" : "hypervisor";
  }

  /** Asks for a mode; as much time passes as it takes: the result is waited for. */
  put(port: Port, request: ModeRequest): Promise<Answer<VfMode & Problem>> {
    return this.time.run(ask(this.app, "PUT", this.#modePath(port), request, { prefer: "wait=60" }));
  }

  async get(port: Port): Promise<VfMode> {
    return (await this.time.run(ask<VfMode>(this.app, "GET", this.#modePath(port)))).body;
  }

  #modePath(port: Port): string {
    return typeof port === "number" ? `/api/v1/vfs/${port}/mode` : `/api/v1/vports/${port.slice(5)}/mode`;
  }

  #vfOf(port: Port): number | null {
    return typeof port === "number" ? port : this.allotted.get(port) ?? null;
  }

  /** Notes a call, and does it unless there is trouble. */
  async #change<T>(name: string, detail: string, act: () => T): Promise<T> {
    this.calls.push(`${name} ${detail}`);
    const trouble = this.troubles.take(name);
    if (trouble instanceof Error) throw trouble;
    if (trouble === "silence") {
      // As for all that asks another service: its own limit, or what the deadline leaves.
      await new Promise((resolve) => setTimeout(resolve, Math.min(15_000, msLeft())));
      throw refusal("unreachable", 503);
    }
    return act();
  }

  #peers(): ModeParts["peers"] {
    const none = () => Promise.reject(new Error("not asked for by modes"));
    const portOf = (name: number | string) => name as Port;
    const known = (port: Port) => {
      const dataPath = this.paths.get(port);
      if (dataPath === undefined) throw new ApiError(404, `there is no port ${port}`, "port");
      return { port, dataPath, role: "server" as const, path: "", connected: true };
    };
    const { troubles } = this;
    return {
      ...{ token: undefined, wish: none, leaveGroups: none, config: none, carrier: none },
      vf: (vf) => Promise.resolve({ hardware: this.hardware.get(vf) ?? "any" } as never),
      // deno-lint-ignore require-await
      port: async (port) => known(portOf(port)),
      ports: () => Promise.resolve([...this.paths.keys()].map(known)),
      // deno-lint-ignore require-await
      leaseOf: async (vf) => {
        const trouble = troubles.take("leaseOf");
        if (trouble instanceof Error) throw trouble;
        const hold = this.#guestOf.get(vf);
        const allotted = [...this.allotted.values()].includes(vf);
        return { driver: this.driverOf(vf), allotted, ...(hold === undefined ? {} : { hold }) };
      },
      vport: (port) => Promise.resolve({ vf: this.allotted.get(port) ?? null } as never),
      hold: (vf, ms) =>
        this.#change("hold", `${vf} ${ms}`, () => {
          if (this.holds.has(vf)) throw refusal("held");
          const grant = { token: `token-${this.#next}`, id: `hold-${this.#next++}` };
          this.holds.set(vf, grant);
          return grant;
        }),
      release: (vf) => this.#change("release", String(vf), () => void this.holds.delete(vf)),
      takeBack: (vf) =>
        this.#change("takeBack", String(vf), () => {
          const takenBack = this.#guestOf.delete(vf);
          const hold = this.holds.get(vf);
          if (hold) this.holds.set(vf, { ...hold, token: "void" });
          return { takenBack, unfetched: takenBack ? 3 : 0 };
        }),
      setDataPath: (port, path) =>
        this.#change("setDataPath", `${port} ${path}`, () => {
          const vf = this.#vfOf(portOf(port));
          if (path !== "guest" && vf !== null && this.#guestOf.has(vf)) throw refusal("vf-in-use");
          this.paths.set(portOf(port), path);
        }),
      allotVf: (port) =>
        this.#change("allotVf", port, () => {
          this.allotted.set(port, 7);
          return 7;
        }),
      returnVf: (port) => this.#change("returnVf", port, () => void this.allotted.set(port, null)),
    };
  }
}

/** A test of modes in virtual time. */
export function modeTest(name: string, fn: (world: ModeWorld) => Promise<void>): void {
  Deno.test(name, async () => {
    using time = new VirtualTime();
    await fn(new ModeWorld(time));
  });
}
