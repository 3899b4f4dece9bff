/**
 * A whole fabric on one machine. The supervisor builds the Wasm, starts the services and the built-in guests as child
 * processes, keeps them running until it is told to stop, and takes everything down again.
 */
import { resolve } from "@std/path";
import {
  complain,
  fabricFile,
  groupId,
  log,
  pfClient,
  type Problem,
  type Readiness,
  sharePassage,
  type UplinkView,
  type Vf,
  writePrivately,
} from "../../shared/api/mod.ts";
import { Progress } from "../../shared/terminal/progress.ts";
import { buildWasm } from "../../shared/wasm/build.ts";
import { npxAbove, whenGone } from "./ancestors.ts";
import { Child, type ChildSpec } from "./child.ts";
import type { Options } from "./options.ts";
import { GUESTS, Places, reachable } from "./places.ts";
import { guest, guestPort, services } from "./processes.ts";
import { claimRunDir, cleanUp, hasSocket, runDirLoss } from "./run_dir.ts";
import { tellSystemd } from "./systemd.ts";
import { dropTokens, type FabricTokens, prepareTokens } from "./tokens.ts";

const READY_DEADLINE_MS = 20_000;
const POLL_MS = 20;
/** Services of which a second process stands by. */
const STANDBYS = ["nic", "vhost"];

/** A built-in guest that runs. */
export interface RunningGuest {
  api: string;
  ip: string;
  port: string;
}

/** A fabric that is ready. */
export interface ReadyFabric {
  api: string;
  vfs: Vf[];
  guests: RunningGuest[];
  /** What of the host is behind it. */
  uplink: UplinkView;
  /** The operator's token; none if everybody is let in. */
  token: string | undefined;
  tookMs: number;
}

type Client = ReturnType<typeof pfClient>;

/** Starts a fabric's processes and keeps them running. */
export class Supervisor {
  readonly #options: Options;
  readonly #places: Places;
  /** The NIC first, then the other services, then guests. */
  readonly #children: Child[] = [];
  readonly #progress = new Progress();
  #tokens: FabricTokens | undefined;
  #isStopping = false;

  /** Throws, with what to do, if the options cannot be. */
  constructor(options: Options) {
    // The services get the right to call the C library from here: without it there is nothing to hand on.
    if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
      throw new Error("Cannot start the NIC: FFI is not permitted; start up with --allow-ffi (or deno task up)");
    }
    const ports = GUESTS + options.guests;
    if (options.port + ports > 65535) {
      throw new Error(`Cannot use port ${options.port}: the services need ${ports} ports from there on`);
    }
    this.#options = { ...options, runDir: resolve(options.runDir) };
    this.#places = new Places(this.#options);
  }

  /**
   * Runs the fabric until a signal ends it, or a service cannot be started, at first or ever again. `onReady` runs once
   * everything is there.
   */
  async run(onReady: (fabric: ReadyFabric) => Promise<void> | void): Promise<void> {
    const started = performance.now();
    const stop = Promise.withResolvers<void>();
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, () => stop.resolve());
    const npx = npxAbove();
    const stopLooking = npx === undefined ? () => {} : whenGone(npx, () => stop.resolve());
    // What is made from here on is its owner's alone.
    Deno.umask(0o077);
    using _lock = claimRunDir(this.#options.runDir);
    const { socketGroup } = this.#options;
    if (socketGroup !== undefined) sharePassage(this.#options.runDir, groupId(socketGroup));
    await this.#build();
    this.#progress.say("starts the services");
    const { token, runDir, guests } = this.#options;
    const tokens = token ? prepareTokens(runDir, Deno.env.get("RINGFABRIC_TOKEN") || undefined, guests) : undefined;
    this.#tokens = tokens;
    if (!tokens) log("warn", "up", "--no-token: every user and web page of this machine may change this fabric");
    this.#children.push(...services(this.#options, this.#places, tokens).map((spec) => this.#child(spec)));
    const failed = Promise.withResolvers<never>();
    try {
      const running = async () => {
        const fabric = await this.#start();
        this.#progress.stop();
        await onReady({ ...fabric, tookMs: performance.now() - started });
        await tellSystemd("--ready", `--status=${fabric.vfs.length} VFs, ${fabric.api}`);
        if (this.#options.standby) this.#startStandbys();
        for (const child of this.#children) child.failed.catch((error) => failed.reject(error));
        await stop.promise;
      };
      await Promise.race([stop.promise, running(), failed.promise, ...this.#children.map((child) => child.failed)]);
      if (!this.#options.json) log("info", "up", "stopping");
    } finally {
      this.#isStopping = true;
      this.#progress.stop();
      stopLooking();
      await Promise.all(this.#children.map((child) => child.tellEnd()));
      await tellSystemd("STOPPING=1");
      await this.#stopAll();
      if (runDirLoss(this.#options.runDir) === undefined) {
        if (this.#options.token) dropTokens(this.#options.runDir);
        cleanUp(this.#options.runDir);
      }
      this.#places.close();
    }
  }

  /** Builds the Wasm if its sources have changed, as they have the first time. */
  async #build(): Promise<void> {
    try {
      await buildWasm((name) => this.#progress.sayNow(`builds ${name}.wasm, once`));
    } finally {
      this.#progress.stop();
    }
  }

  /** Keeps a process running. Throws if all of them are to end: nobody would end this one. */
  #child(spec: ChildSpec, isStandby = false): Child {
    if (this.#isStopping) throw new Error(`cannot start ${spec.name}: the fabric stops`);
    const parts = {
      print: (line: string) => this.#progress.aside(() => complain(line)),
      hopeless: () => runDirLoss(this.#options.runDir),
    };
    return new Child(spec, parts, isStandby);
  }

  /** Waits until the services and the guests are there. */
  async #start(): Promise<Omit<ReadyFabric, "tookMs">> {
    const infos = await Promise.all(this.#children.map((child) => child.ready));
    for (const child of this.#children) child.tell();
    const [api, vhost] = [infos[1]?.api, infos[2]?.api].map((url) => reachable(String(url))) as [string, string];
    const token = this.#tokens?.operator;
    const client = pfClient(api, token);
    const vfs = await awaitVfs(client, [api, vhost], this.#options.vfs);
    const uplink = await this.#setUplink(client);
    if (this.#options.guests > 0) this.#progress.say("starts the guests");
    const guests = await this.#startGuests(client, vfs);
    // By this the command line finds the fabric, and its token.
    writePrivately(fabricFile(this.#options.runDir), JSON.stringify({ api }));
    return { api, vfs, guests, uplink, token };
  }

  /** Starts a second process of the NIC and of vhost. Which of both works is theirs to settle: whoever comes second waits. */
  #startStandbys(): void {
    for (const { spec } of this.#children.filter(({ spec: { name } }) => STANDBYS.includes(name))) {
      const standby = this.#child(spec, true);
      this.#children.push(standby);
      standby.tell();
    }
  }

  /** Puts behind the fabric what was asked for, if anything was; answers what is there. */
  async #setUplink(client: Client): Promise<UplinkView> {
    const { uplink } = client.api.v1.nic;
    const { uplink: json } = this.#options;
    const answer = json === undefined ? await uplink.$get() : await uplink.$put({ json });
    const said: UplinkView | Problem = await answer.json();
    if (!answer.ok) throw new Error((said as Problem).detail);
    return said as UplinkView;
  }

  /** Starts the built-in guests, those without a VF on vports, and waits until each has its back-end. */
  async #startGuests(client: Client, vfs: Vf[]): Promise<RunningGuest[]> {
    for (let id = 0; id < this.#options.guests - vfs.length; id++) {
      const there = await client.api.v1.vports[":id"].$get({ param: { id: String(id) } });
      await there.body?.cancel();
      if (there.status === 404) await (await client.api.v1.vports.$post({ json: { id } })).body?.cancel();
    }
    const deadline = Date.now() + READY_DEADLINE_MS;
    return await Promise.all(Array.from({ length: this.#options.guests }, async (_, i) => {
      const child = this.#child(
        guest(i, vfs.length, { options: this.#options, places: this.#places, tokens: this.#tokens }),
      );
      this.#children.push(child);
      const info = await child.ready;
      child.tell();
      const url = reachable(String(info.api));
      for (let reason; (reason = await unreadiness(url)) !== undefined;) {
        if (Date.now() > deadline) throw new Error(`guest ${i} did not become ready: ${reason}`);
        await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      }
      return { api: url, ip: String(info.ip), port: guestPort(i, vfs.length) };
    }));
  }

  /** Guests go first and the NIC last: nobody is to see go what it needs. */
  async #stopAll(): Promise<void> {
    const isGuest = ({ spec }: Child) => spec.name.startsWith("guest ");
    const isNic = ({ spec }: Child) => spec.name === "nic";
    const all = this.#children;
    await Promise.all(all.filter(isGuest).map((guest) => guest.stop()));
    await Promise.all(all.filter((child) => !isGuest(child) && !isNic(child)).map((child) => child.stop()));
    await Promise.all(all.filter(isNic).map((nic) => nic.stop()));
  }
}

/** Why the service at `url` is not ready, by its own word; `undefined` if it is. */
async function unreadiness(url: string): Promise<string | undefined> {
  const response = await fetch(`${url}/readyz`);
  const { reason } = await response.json() as Readiness;
  return response.ok ? undefined : reason ?? `it answers ${response.status}`;
}

/** Waits until the PF has programmed the NIC, which has the wanted number of VFs, and every VF has its socket. */
async function awaitVfs(client: Client, [api, vhost]: [string, string], wanted: number | undefined): Promise<Vf[]> {
  const deadline = Date.now() + READY_DEADLINE_MS;
  let reasons: (string | undefined)[] = [];
  for (;;) {
    try {
      const [pfFault, vhostFault] = await Promise.all([unreadiness(api), unreadiness(vhost)]);
      reasons = [pfFault && `the PF: ${pfFault}`, vhostFault && `the vhost service: ${vhostFault}`];
      let vfCount = wanted;
      if (pfFault === undefined) {
        const nic = await (await client.api.v1.nic.$get()).json();
        vfCount ??= nic.numVfs;
        if (nic.numVfs !== vfCount) {
          const response = await client.api.v1.nic.$patch({ json: { numVfs: vfCount } });
          if (!response.ok) throw new Error(((await response.json()) as { detail: string }).detail);
        }
      }
      // Without VFs the vhost service has no ports to be ready with.
      if (pfFault === undefined && (vhostFault === undefined || vfCount === 0)) {
        const vfs = await (await client.api.v1.vfs.$get()).json();
        const without = vfs.filter((vf) => !hasSocket(vf.socket));
        // What keeps a socket from being made is in the vhost service's log; it is no reason to have no fabric.
        const isLate = Date.now() > deadline;
        if (isLate && without.length > 0) {
          log(
            "warn",
            "up",
            `no guest can attach to ${without.map(({ id }) => `vf ${id}`).join(", ")}`,
          );
        }
        if (without.length === 0 || isLate) return vfs as Vf[];
      }
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) {
      const why = reasons.filter((reason) => reason !== undefined).join("; ");
      throw new Error(`the fabric was not ready within ${READY_DEADLINE_MS / 1000} s: ${why}`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
