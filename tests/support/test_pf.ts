/**
 * A PF in this process: its real policy, store (in memory) and API, with a NIC, a software switch and a vf service that
 * the test plays. Everything that reaches them is kept, in order.
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import {
  ApiError,
  type EngineState,
  type ModeEvent,
  type NicEvent,
  type NicState,
  type PfEvent,
  type PoolName,
  type PortState,
  type Problem,
  type Programme,
  Restarts,
  type ServiceUpgrade,
  type SwitchProgramme,
  type UplinkSpec,
  type UplinkState,
  type Vf,
  type VfMode,
  type VhostEvent,
  type VhostState,
  type VportState,
  type VportView,
  type WishAnswer,
} from "../../shared/api/mod.ts";
import { pfApi } from "../../services/pf/api.ts";
import { Fabric } from "../../services/pf/fabric.ts";
import type { Links } from "../../services/pf/links.ts";
import { Store } from "../../services/pf/store.ts";
import { pcapngHeader } from "../../shared/pcap/mod.ts";
import { type Answer, ask } from "./app.ts";
import { histogram } from "./latency.ts";
import { UNUSED } from "./limits.ts";

const ENGINE: EngineState = {
  ...{ busyRatio: 0, busyNsTotal: 0, sleptNsTotal: 0, uptimeNs: 1, framesTotal: 0, passesTotal: 0 },
  ...{ busyPassesTotal: 0, sleepsTotal: 0, callsTotal: 0, spuriousKicksTotal: 0, faultsTotal: 0, filters: 0 },
  ...{ arenaFreeBytes: 0, captures: 0, sigbusGuard: true },
};

/** A pool that nobody drives. */
const IDLE_POOL: NicState["pf"] = {
  ...{ attached: false, held: false, queues: [], learnedMacs: 0, counters: {} },
  latency: histogram(),
  memory: { bytes: 0, regions: 0, sealed: true },
  limits: UNUSED,
};

/** A service that the PF programmes, as the test plays it. */
class FakeLink<Programme, Event> {
  /** Every programme that it was given, the refused ones too. */
  readonly programmes: Programme[] = [];
  /** What it answers to the next programmes, one after the other; then it takes them. */
  readonly refusals: Error[] = [];
  /** It answers to programmes when this is settled. */
  pending: Promise<void> = Promise.resolve();
  /** How often the PF has dropped the line, to have the service programmed anew. */
  reconnects = 0;
  /** What captures were asked for, as searches of a URL. */
  readonly captures: string[] = [];
  connected = false;
  trouble: string | undefined;
  readonly sinceMs = Date.now();
  readonly #up = Promise.withResolvers<void>();
  /** Resolves when the PF has programmed it for the first time. */
  readonly up = this.#up.promise;
  #program: () => Promise<void> = () => Promise.resolve();
  readonly #closed = Promise.withResolvers<void>();
  #onChange: (connected: boolean) => void = () => {};
  /** Tells the PF an event. */
  tell: (event: Event) => void = () => {};

  async program(programme: Programme): Promise<void> {
    this.programmes.push(structuredClone(programme));
    const refusal = this.refusals.shift();
    await this.pending;
    if (refusal) throw refusal;
  }

  async follow(
    program: () => Promise<void>,
    onEvent: (event: Event) => void,
    onChange: (connected: boolean) => void,
  ): Promise<void> {
    this.tell = onEvent;
    this.#program = program;
    this.#onChange = onChange;
    await this.comeBack();
    await this.#closed.promise;
  }

  /** The service has started (again): the PF programmes it. */
  async comeBack(): Promise<void> {
    await this.#program();
    this.connected = true;
    this.trouble = undefined;
    this.#onChange(true);
    this.#up.resolve();
  }

  /** The service has gone. */
  goAway(): void {
    this.connected = false;
    this.trouble = "lost the service: it has gone";
    this.#onChange(false);
  }

  reconnect(): void {
    this.reconnects++;
  }

  /** A capture without frames. */
  capture(search: string): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
    this.captures.push(search);
    return Promise.resolve(new Blob([pcapngHeader(["vf0"])]).stream());
  }

  close(): void {
    this.#closed.resolve();
  }
}

/** The NIC. */
class FakeNic extends FakeLink<Programme, NicEvent> {
  /** VFs that were taken back, in order. */
  readonly takenBack: number[] = [];
  /** What it says of each VF; VFs that are not named are idle. */
  readonly pools = new Map<number | "pf" | "uplink", Partial<NicState["pf"]>>();
  isAway = false;
  /** What is behind its pools. */
  uplinks: NicState["uplinks"] = {};
  /** Every uplink that was put, the refused ones too. */
  readonly putUplinks: [PoolName, UplinkSpec][] = [];
  /** What it answers to the next specs that are not none, one after the other; then it takes them, and they are up. */
  readonly uplinkRefusals: Error[] = [];

  putUplink(pool: PoolName, spec: UplinkSpec, keep: boolean): Promise<UplinkState> {
    this.putUplinks.push([pool, spec]);
    const refusal = spec.kind === "none" ? undefined : this.uplinkRefusals.shift();
    if (refusal && !keep) return Promise.reject(refusal);
    const state = spec.kind === "none" ? "none" : refusal ? "failed" : "up";
    const { [pool]: _, ...others } = this.uplinks;
    const reason = refusal ? { reason: refusal.message } : {};
    const put: UplinkState = { spec, state, ...reason, counters: {}, offloads: [] };
    this.uplinks = state === "none" ? others : { ...others, [pool]: put };
    return Promise.resolve(put);
  }

  /** The host's interface behind a pool has come up or gone down. */
  turn(pool: PoolName, state: "up" | "down", reason?: string): void {
    const before = this.uplinks[pool];
    const { reason: _, ...others } = before ?? { spec: { kind: "none" }, counters: {}, offloads: [] };
    this.uplinks = { ...this.uplinks, [pool]: { ...others, state, ...(reason ? { reason } : {}) } };
    this.tell({ type: "uplink", pool, state, ...(reason ? { reason } : {}) });
  }

  takeBack(vf: number): Promise<void> {
    this.takenBack.push(vf);
    return Promise.resolve();
  }

  upgrade(): Promise<ServiceUpgrade> {
    return Promise.resolve({ pid: 2, before: 1 });
  }

  state(): Promise<NicState> {
    if (this.isAway) return Promise.reject(new ApiError(503, "the NIC does not answer", undefined, "unreachable"));
    const count = this.programmes.at(-1)?.vfs.length ?? 0;
    const vfs = Array.from({ length: count }, (_, vf) => ({ ...IDLE_POOL, ...this.pools.get(vf) }));
    const pool = (name: "pf" | "uplink") => ({ ...IDLE_POOL, ...this.pools.get(name) });
    return Promise.resolve({
      ...{
        instance: "test",
        pid: 1,
        standby: { state: "none" as const },
        programmed: true,
        engine: ENGINE,
        vfs,
        pf: pool("pf"),
        uplink: pool("uplink"),
      },
      uplinks: this.uplinks,
    });
  }

  filters(): Promise<[]> {
    return Promise.resolve([]);
  }
}

/** The vhost service's software switch. */
class FakeSwitch extends FakeLink<SwitchProgramme, VhostEvent> {
  /** VFs' ports to which a front-end is connected. */
  readonly frontEnds = new Set<number>();
  /** What the PF said to guests' wishes. */
  readonly answers: [string, WishAnswer][] = [];
  states: VportState[] = [];

  state(): Promise<VhostState> {
    return Promise.resolve({ pid: 3, standby: { state: "none" } });
  }

  upgrade(): Promise<ServiceUpgrade> {
    return Promise.resolve({ pid: 4, before: 3 });
  }

  ports(): Promise<PortState[]> {
    return Promise.resolve([...this.frontEnds].map((port) => ({
      ...{ port, connected: true, dataPath: "passthrough" as const, role: "server" as const, path: "" },
    })));
  }

  vports(): Promise<VportState[]> {
    return Promise.resolve(this.states);
  }

  answerWish(id: string, answer: WishAnswer): Promise<void> {
    this.answers.push([id, answer]);
    return Promise.resolve();
  }
}

/** The vf service. */
class FakeModes {
  /** What it was asked for: port, and the request of a change. */
  readonly asked: [string, unknown?][] = [];
  answer: VfMode | ApiError = { mode: "emulated", changing: false };

  #answer(): Promise<VfMode> {
    return this.answer instanceof ApiError ? Promise.reject(this.answer) : Promise.resolve(this.answer);
  }

  get(port: string): Promise<VfMode> {
    this.asked.push([port]);
    return this.#answer();
  }

  put(port: string, request: unknown): Promise<VfMode> {
    this.asked.push([port, request]);
    return this.#answer();
  }

  upgrade(): Promise<ServiceUpgrade> {
    return Promise.resolve({ pid: 6, before: 5 });
  }
}

/** The PF with what it talks to. */
export class TestPf implements AsyncDisposable {
  readonly nic = new FakeNic();
  readonly software = new FakeSwitch();
  readonly modes = new FakeModes();
  readonly modeEvents = new FakeLink<never, ModeEvent>();
  readonly fabric: Fabric;
  readonly app: OpenAPIHono;
  readonly events: PfEvent[] = [];
  readonly store: Store;

  private constructor(
    store: Store,
    modes: Links["modes"] | undefined,
    uplinks: NicState["uplinks"],
    uplinkRefusals: Error[],
  ) {
    this.nic.uplinks = uplinks;
    this.nic.uplinkRefusals.push(...uplinkRefusals);
    const links: Links = {
      nic: this.nic,
      software: this.software,
      modes: modes ?? this.modes,
      modeEvents: this.modeEvents,
      self: new Restarts("pf"),
    };
    this.store = store;
    this.fabric = new Fabric(store, links, { runDir: "/run/test" });
    this.fabric.subscribe((event) => this.events.push(event));
    this.app = pfApi(this.fabric, undefined);
  }

  /**
   * A PF with `vfs` VFs; `path`: where its settings are kept; `modes`: a vf service that is not played; `uplinks`: what
   * its NIC has already, and what it refuses first.
   */
  static async start(
    vfs = 4,
    path = ":memory:",
    modes?: Links["modes"],
    uplinks: NicState["uplinks"] = {},
    uplinkRefusals: Error[] = [],
  ): Promise<TestPf> {
    const pf = new TestPf(new Store(path, "test", vfs), modes, uplinks, uplinkRefusals);
    await Promise.all([pf.nic.up, pf.software.up]);
    return pf;
  }

  async get<T = Vf>(path: string): Promise<T> {
    return (await ask<T>(this.app, "GET", `/api/v1/${path}`)).body;
  }

  /** Changes something that must be taken; answers it as it is now. */
  async set<T = Vf>(path: string, body: unknown): Promise<T> {
    const { status, body: answer } = await this.patch<T>(path, body);
    if (status !== 200) throw new Error(`PATCH ${path} ${JSON.stringify(body)}: ${JSON.stringify(answer)}`);
    return answer;
  }

  patch<T = Problem>(path: string, body: unknown): Promise<Answer<T>> {
    return ask<T>(this.app, "PATCH", `/api/v1/${path}`, body);
  }

  ask<T = Problem>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
    return ask<T>(this.app, method, `/api/v1/${path}`, body);
  }

  /** Makes a vport that must be taken. */
  async addVport(request: Record<string, unknown> = {}): Promise<VportView> {
    const { status, body } = await this.ask<VportView>("POST", "vports", request);
    if (status !== 201) throw new Error(`POST vports ${JSON.stringify(request)}: ${JSON.stringify(body)}`);
    return body;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fabric.close();
    this.store[Symbol.dispose]();
  }
}
