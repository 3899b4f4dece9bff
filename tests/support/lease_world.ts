/**
 * A NIC with its real engine, device sockets and changes of mode, in this process, and around it what a test plays: the
 * vhost service, and guests that are honest, refuse, lie, are silent, keep what they were given, or die. A guest's
 * connections are kept when it has lost its VF, so that it can go on asking.
 */
import { ApiError, type DataPath, type Programme } from "../../shared/api/mod.ts";
import { defaultPolicy } from "../../shared/api/policy.ts";
import { Engine } from "../../shared/engine/mod.ts";
import { Reactor } from "../../shared/os/mod.ts";
import { DeviceServer } from "../../services/nic/device.ts";
import type { NicExports } from "../../services/nic/exports.ts";
import type { Lease } from "../../services/nic/lease.ts";
import { Nic } from "../../services/nic/nic.ts";
import type { ModeParts } from "../../services/vf/handover.ts";
import { Modes } from "../../services/vf/modes.ts";
import { TestShell } from "./test_shell.ts";
import { Driver } from "./vf_driver.ts";
import { until } from "./wait.ts";
import { LIMITS } from "./limits.ts";

const IMAGE = {
  view: {
    ...{ name: "test", version: "1.0.0", hardware: "advanced" as const, abi: 1, licence: "MIT" },
    ...{ bytes: 0, sha256: "", signer: "" },
  },
  image: new Uint8Array(0),
};

/** NIC, vhost and guests. */
export class LeaseWorld implements AsyncDisposable {
  readonly nic: Nic;
  readonly modes: Modes;
  readonly guests: TestShell[];
  /** Every driver and every lease that there ever was in this run. */
  readonly drivers: Driver[] = [];
  readonly leases = new Set<Lease>();
  /** The vhost service does not answer. */
  vhostIsAway = false;
  readonly #reactor: Reactor;
  readonly #servers: DeviceServer[];
  readonly #dir: string;
  readonly #paths: DataPath[];
  readonly #vhost: (Driver | undefined)[];
  #next = 1;

  private constructor(engine: Engine<NicExports>, vfs: number, dir: string, reactor: Reactor) {
    this.#dir = dir;
    this.#reactor = reactor;
    this.nic = new Nic(engine, { ...LIMITS, graceMs: 60_000 });
    this.#servers = [
      new DeviceServer(this.nic, `${dir}/nic.sock`, reactor, false),
      new DeviceServer(this.nic, `${dir}/passthrough.sock`, reactor, true),
    ];
    this.nic.program(programme(vfs));
    this.guests = Array.from({ length: vfs }, (_, port) => new TestShell(this, port));
    this.#paths = Array<DataPath>(vfs).fill("guest");
    this.#vhost = Array<undefined>(vfs).fill(undefined);
    this.modes = new Modes({
      peers: this.#peers(),
      guests: {
        find: (port) => this.guests[Number(port)],
        findSoon: (port) => Promise.resolve(this.guests[Number(port)]),
      },
      registry: { find: () => Promise.resolve(IMAGE) },
    });
  }

  /** Starts it with every VF in emulated mode. */
  static async start(vfs: number): Promise<LeaseWorld> {
    const engine = await Engine.start<NicExports>({ cpus: [], spinUs: 0 });
    const dir = await Deno.makeTempDir({ prefix: "ringfabric-leases-" });
    const world = new LeaseWorld(engine, vfs, dir, new Reactor());
    for (let vf = 0; vf < vfs; vf++) await world.#setDataPath(vf, "emulated");
    return world;
  }

  driver(name: string, socket: string): Driver {
    const driver = new Driver(name, this.#next++, `${this.#dir}/${socket}`, this.#reactor);
    this.drivers.push(driver);
    return driver;
  }

  /** Who drives a VF, as the vhost service's port has it. */
  pathOf(vf: number): DataPath {
    return this.#paths[vf] as DataPath;
  }

  /** The driver that the vhost service has on a VF. */
  vhostOf(vf: number): Driver | undefined {
    return this.#vhost[vf];
  }

  async #setDataPath(vf: number, path: DataPath): Promise<void> {
    if (this.vhostIsAway) throw new ApiError(503, "vhost does not answer", undefined, "unreachable");
    if (this.#paths[vf] === path) return;
    if (path === "guest") {
      await this.#vhost[vf]?.detach();
      this.#vhost[vf]?.client.close();
      this.#vhost[vf] = undefined;
    } else {
      const guest = this.guests[vf];
      if (guest?.plan === "takesLate" && guest.kept) await guest.take(vf, guest.kept).catch(() => {});
      const driver = this.driver(`vhost of vf ${vf}`, "nic.sock");
      this.#vhost[vf] = driver;
      await driver.attach(vf, "emulated");
      await driver.drive();
    }
    this.#paths[vf] = path;
  }

  #peers(): ModeParts["peers"] {
    const none = () => Promise.reject(new Error("this world has no vports"));
    return {
      token: undefined,
      vf: () => Promise.resolve({ hardware: "any" } as never),
      wish: none,
      leaveGroups: none,
      config: none,
      carrier: none,
      hold: (vf, deadlineMs) => refusing(() => this.nic.hold(vf, deadlineMs)),
      release: (vf) => this.nic.release(vf),
      takeBack: (vf) => refusing(() => this.nic.takeBack(vf, "the hypervisor took it back")),
      leaseOf: (vf) => refusing(() => this.nic.leaseOf(vf)),
      port: (port) => Promise.resolve({ dataPath: this.#paths[Number(port)] } as never),
      ports: none,
      setDataPath: (port, path) => this.#setDataPath(Number(port), path),
      vport: none,
      allotVf: none,
      returnVf: none,
    };
  }

  /** Takes everything back, and waits until the NIC has noticed. */
  async empty(): Promise<void> {
    for (const [vf, guest] of this.guests.entries()) {
      await this.nic.release(vf);
      this.nic.takeBack(vf, "the run ends");
      guest.plan = "honest";
      guest.mode = { mode: "emulated", connected: true };
      guest.driver = guest.kept = undefined;
      await this.#setDataPath(vf, "guest");
    }
    for (const driver of this.drivers) driver.close();
    await until("every driver to be gone", () => this.drivers.every(({ ended }) => ended));
    this.drivers.length = 0;
    this.leases.clear();
  }

  /** Puts every VF into emulated mode again. */
  async refill(): Promise<void> {
    for (const vf of this.guests.keys()) await this.#setDataPath(vf, "emulated");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const driver of this.drivers) driver.close();
    for (const server of this.#servers) await server.close();
    await this.nic.close();
    await this.#reactor.close();
    await Deno.remove(this.#dir, { recursive: true });
  }
}

/** As the NIC's API answers: a refusal is a rejected promise. */
function refusing<T>(act: () => T): Promise<T> {
  return Promise.resolve().then(act);
}

/** A programme with so many VFs, each with an address of its own. */
export function programme(vfs: number): Programme {
  const mac = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, "0")}`;
  return {
    ...{ switchMode: "veb", link: "up", pfMac: mac(0xff), vports: [] },
    vfs: Array.from({ length: vfs }, (_, vf) => ({ ...defaultPolicy(mac(vf)), fallback: "none" as const })),
  };
}
