/**
 * What the soak runs in: a fabric with four built-in guests, which send each other checked, numbered streams, and two
 * VFs for guests that come and go. What an action needs to do something to it is here; what it may do is in `actions.ts`.
 */
import type { UplinkSpec } from "../../shared/api/mod.ts";
import { CaptureStream } from "../support/capture_stream.ts";
import { cli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { ask, must, setMode, TestGuest } from "../support/guests.ts";
import { childrenOf } from "../support/process.ts";
import { until } from "../support/wait.ts";
import type { Cost } from "./cost.ts";
import { FarEnd } from "./far_end.ts";

/** Services that `up` starts again, in their order. */
export const SERVICES = ["nic", "pf", "vhost", "vf"] as const;
export type ServiceName = typeof SERVICES[number];
/** Services of which two processes run, unless without standbys. */
export const PAIRS = ["nic", "vhost"] as const;
/** Which process of a service. */
export type Role = "active" | "standby";
/** Built-in guests, on the first VFs. */
export const GUESTS = 4;
/** VFs without a built-in guest. */
export const SPARE_VFS = [4, 5] as const;
/** How long everything may take to be as it should be again. */
const RECOVERY_MS = 120_000;
const LOOK_MS = 2000;

/** The modes that a VF may be in. */
export const MODES = {
  "copy": { mode: "emulated", dataPath: "copy" },
  "zero copy": { mode: "emulated", dataPath: "zerocopy" },
  "header split": { mode: "emulated", dataPath: "headersplit" },
  "plugin advanced": { mode: "passthrough", plugin: "advanced" },
  "plugin virtio": { mode: "passthrough", plugin: "virtio" },
} as const;
export type ModeName = keyof typeof MODES;
/** The mode in which everything begins and ends. */
const REST_MODE: ModeName = "copy";
/** Data paths whose books lie in vhost's process: they begin anew in another one. */
const BEGIN_ANEW = ["zerocopy", "headersplit"];

function pathOf(name: ModeName): string {
  const mode = MODES[name];
  return "dataPath" in mode ? mode.dataPath : "guest";
}

/** What a fabric says when a driver's ring cannot be gone on with by the NIC's next process. */
const RING_BROKEN = "the NIC died while it wrote to the VF's ring";
/** What a fabric says when a guest attaches again, with the guest's VF. */
const ATTACHED_AGAIN = /vf (\d+): (?:a front-end connected|the front-end's session ended|the NIC went away)/g;

/** When a process was started, in the kernel's ticks; what has just ended counts as new. */
function startOf(pid: number): number {
  try {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ").at(-1)?.split(" ") ?? [];
    return Number(fields[19]);
  } catch {
    return Infinity;
  }
}

/** What no other process is called, also when its number is given out again. */
function identityOf(pid: number): string {
  return `${pid} ${startOf(pid)}`;
}

function commandOf(pid: number): string {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  } catch {
    return "";
  }
}

/** A fabric and its guests. */
export class World implements AsyncDisposable {
  readonly fabric: TestFabric;
  readonly guests: readonly TestGuest[];
  /** Processes of the fabric that were told to end, by `identityOf`. */
  readonly #signalled = new Set<string>();
  /** Whoever worked for a service and who stood by when that was asked last, by `identityOf`: two may start together. */
  readonly #known = new Map<ServiceName, string[]>();
  readonly hasStandbys: boolean;
  /** Where guests move to; only root can lay the cable. */
  readonly far: FarEnd | undefined;
  /** The data paths that a guest's frames may go in this step: two, if it changes. */
  readonly #paths = new Map<number, ReadonlySet<string>>();
  readonly #upgraded = new Set<ServiceName>();
  #away: number | undefined;

  private constructor(fabric: TestFabric, far: FarEnd | undefined, hasStandbys: boolean) {
    [this.fabric, this.far, this.hasStandbys] = [fabric, far, hasStandbys];
    this.guests = Array.from({ length: GUESTS }, (_, i) => TestGuest.of(fabric, i));
  }

  static async start(hasStandbys: boolean): Promise<World> {
    await using owned = new AsyncDisposableStack();
    const standby = hasStandbys ? ["--standby"] : [];
    const options = ["--guests", String(GUESTS), ...standby];
    const fabric = owned.use(await TestFabric.start(GUESTS + SPARE_VFS.length, options));
    const far = Deno.uid() === 0 ? owned.use(await FarEnd.start(fabric)) : undefined;
    const world = new World(fabric, far, hasStandbys);
    await world.recovered();
    owned.move();
    return world;
  }

  guest(index: number): TestGuest {
    const guest = this.guests[index];
    if (!guest) throw new Error(`there is no guest ${index}`);
    return guest;
  }

  /** Processes of a service: whoever works first. Of those that are not known yet the younger stands by. */
  processes(name: ServiceName): number[] {
    const known = this.#known.get(name) ?? [];
    const rank = (pid: number) => known.includes(identityOf(pid)) ? known.indexOf(identityOf(pid)) : known.length;
    return childrenOf(this.fabric.process.pid)
      .filter((pid) => commandOf(pid).includes(`services/${name}/main.ts`))
      .sort((a, b) => rank(a) - rank(b) || startOf(a) - startOf(b));
  }

  #process(name: ServiceName, role: Role): number | undefined {
    const [active, standby] = this.processes(name);
    return role === "active" ? active : standby;
  }

  /** Whether somebody stands ready for a service; false while it does not answer. */
  async #isStoodBy(name: ServiceName): Promise<boolean> {
    const signal = AbortSignal.timeout(LOOK_MS);
    const looking = must(`${this.fabric.url(name)}/api/v1/state`).catch(() => undefined);
    const late = new Promise<undefined>((resolve) => signal.addEventListener("abort", () => resolve(undefined)));
    const { state, pid } = (await Promise.race([looking, late]))?.standby ?? {};
    // One that was killed seems to stand by until its death is known.
    if (state !== "ready" || startOf(pid) === Infinity || this.#signalled.has(identityOf(pid))) return false;
    this.#known.set(name, [...this.processes(name).filter((other) => other !== pid), pid].map(identityOf));
    return true;
  }

  /** Ends a process: as the kernel would that has no memory left, or as whoever upgrades it. */
  async end(name: ServiceName, role: Role, cost: Cost, signal: Deno.Signal = "SIGKILL"): Promise<void> {
    if (role === "active" && (name === "nic" || name === "vhost")) {
      const isStoodBy = await this.#isStoodBy(name);
      if (!isStoodBy || this.#upgraded.has(name)) cost.isOutage();
      this.#takeOverCosts(name, cost);
    }
    const pid = this.#process(name, role);
    // It may have died already, in the same step.
    if (pid === undefined) return;
    this.#signalled.add(identityOf(pid));
    Deno.kill(pid, signal);
    // One that hands over first is not to be taken for the next one.
    await until(`${name} to end`, () => !this.processes(name).includes(pid), RECOVERY_MS);
  }

  #takeOverCosts(name: ServiceName, cost: Cost): void {
    // What its packets were in the kernel's hands, or came while nobody had the interface open.
    if (name === "nic" && this.#away !== undefined) cost.mayLose(this.#away);
    if (name !== "vhost") return;
    for (const [vf, paths] of this.#paths) if (BEGIN_ANEW.some((path) => paths.has(path))) cost.mayBeginAnew(vf);
  }

  /** Ends both processes of a service at once. */
  endPair(name: ServiceName, cost: Cost): void {
    cost.isOutage();
    for (const pid of this.processes(name)) {
      this.#signalled.add(identityOf(pid));
      Deno.kill(pid, "SIGKILL");
    }
  }

  /** Has a service's next process take its place. */
  async upgrade(name: ServiceName, cost: Cost): Promise<void> {
    this.#upgraded.add(name);
    try {
      this.#takeOverCosts(name, cost);
      const { code, out, err } = await cli(this.fabric, "--json", "upgrade", name);
      if (code !== 0) throw new Error(`fabric upgrade ${name}: ${err}`);
      const { before, pid } = JSON.parse(out);
      if (before === pid) throw new Error(`${name} is still process ${pid} after its upgrade`);
    } finally {
      this.#upgraded.delete(name);
    }
  }

  killGuest(index: number, cost: Cost): void {
    cost.kill(index);
    const pid = this.fabric.guestPid(index);
    if (pid !== undefined) Deno.kill(pid, "SIGKILL");
  }

  /** Has a process stand still for so long. */
  async freeze(name: ServiceName, role: Role, ms: number): Promise<void> {
    const pid = this.#process(name, role);
    if (pid === undefined) return;
    Deno.kill(pid, "SIGSTOP");
    try {
      await new Promise((resolve) => setTimeout(resolve, ms));
    } finally {
      // It may have been killed meanwhile.
      if (this.processes(name).includes(pid)) Deno.kill(pid, "SIGCONT");
    }
  }

  async setMode(vf: number, name: ModeName, cost?: Cost): Promise<void> {
    this.#paths.set(vf, new Set([...this.#paths.get(vf) ?? [], pathOf(name)]));
    try {
      await setMode(this.fabric, vf, MODES[name]);
    } catch (error) {
      // If a service dies in the middle, a guest may have lost its VF and begin anew at vhost.
      cost?.mayLose(vf);
      cost?.mayAttachAgain(vf);
      throw error;
    }
  }

  async patch(vf: number, patch: Record<string, unknown>): Promise<void> {
    await must(`${this.fabric.info.api}/api/v1/vfs/${vf}`, "PATCH", patch);
  }

  async setUplink(pool: "nic" | `vfs/${number}`, spec: UplinkSpec): Promise<void> {
    await must(`${this.fabric.info.api}/api/v1/${pool}/uplink`, "PUT", spec);
  }

  /** What is behind the uplink's pool while nothing is done to it. */
  get #restUplink(): UplinkSpec {
    return this.far ? { kind: "packet", interface: this.far.interface } : { kind: "none" };
  }

  /** Records what goes out of a pool, for a moment. */
  async useUplink(pool: "nic" | `vfs/${number}`): Promise<void> {
    const record = `${this.fabric.runDir}/soak.pcap`;
    await this.setUplink(pool, { kind: "pcap", record });
    await this.setUplink(pool, { kind: "none" });
    if (pool === "nic") await this.setUplink(pool, this.#restUplink);
    await Deno.remove(record).catch(() => {});
  }

  /** Moves a guest to the other fabric and back. */
  async moveGuest(vf: number, cost: Cost): Promise<void> {
    if (!this.far) throw new Error("no other fabric is there");
    const home = { vf, guest: this.guest(vf) };
    // While no VF has its address.
    cost.mayLoseTo(vf);
    cost.mayAttachAgain(vf);
    this.#away = vf;
    try {
      await this.setUplink("nic", this.#restUplink);
      await this.far.visit(home, this.guest((vf + 1) % GUESTS).ip);
    } finally {
      await this.far.bringHome(home);
      this.#away = undefined;
    }
  }

  /** Captures frames, reads on for so long, and goes away without a word. */
  async capture(path: string, readMs: number): Promise<void> {
    await using capture = await CaptureStream.open(this.fabric, path);
    const end = performance.now() + readMs;
    if (readMs > 0) await capture.until("frames", (file) => file.length > 0 && performance.now() > end);
  }

  /** Adds a guest without a VF, and takes it away again. */
  async comeAndGoVport(): Promise<void> {
    const { id } = await must(`${this.fabric.info.api}/api/v1/vports`, "POST", {});
    await must(`${this.fabric.info.api}/api/v1/vports/${id}`, "DELETE");
  }

  /** Guests that have attached again since the log was so long; drivers that had to begin anew may lose frames. */
  attachedAgain(since: number, cost: Cost): number[] {
    const text = this.fabric.process.errors.slice(since);
    if (text.includes(RING_BROKEN)) cost.isOutage();
    const found = [...text.matchAll(ATTACHED_AGAIN)].map(([, vf]) => Number(vf));
    return [...new Set(found)].filter((vf) => vf < GUESTS);
  }

  /** Looks which way each guest's frames go: one that has lost its plugin goes the way it went before. */
  async look(): Promise<void> {
    for (const { port, dataPath, emulatedPath } of await must(`${this.fabric.url("vhost")}/api/v1/ports`)) {
      if (typeof port === "number" && port < GUESTS) {
        this.#paths.set(port, new Set([dataPath === "emulated" ? emulatedPath ?? "copy" : dataPath]));
      }
    }
  }

  /** Waits until every service is ready, everybody who stands by is, and no operation goes on. */
  async recovered(): Promise<void> {
    let missing = "";
    await until(
      "everything to be ready",
      async () => {
        missing = (await Promise.all([
          ...SERVICES.map((name) => this.#unreadiness(name, this.fabric.url(name))),
          ...this.guests.map(({ api }, i) => this.#unreadiness(`guest ${i}`, api)),
          ...(this.hasStandbys ? PAIRS : []).map(async (name) =>
            await this.#isStoodBy(name) ? "" : `${name} is not stood by for`
          ),
          this.#operations(),
        ])).filter((reason) => reason !== "").join("; ");
        return missing === "";
      },
      RECOVERY_MS,
      50,
    ).catch((error) => {
      throw new Error(`${(error as Error).message}; still: ${missing}`);
    });
  }

  async #unreadiness(name: string, url: string): Promise<string> {
    try {
      const answer = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(5000) });
      const { reason } = await answer.json();
      return answer.ok ? "" : `${name}: ${reason}`;
    } catch {
      return `${name} does not answer`;
    }
  }

  async #operations(): Promise<string> {
    const { status, body } = await ask(`${this.fabric.info.api}/api/v1/operations`).catch(() => ({
      status: 0,
      body: undefined,
    }));
    if (status !== 200) return "the PF does not answer";
    const running = (body as { state: string; what: string }[]).filter(({ state }) => state === "running");
    return running.map(({ what }) => `${what} goes on`).join("; ");
  }

  /** Puts everything back to how it began, so that what is held then can be compared. */
  async rest(): Promise<void> {
    await this.recovered();
    for (const vf of this.guests.keys()) await this.setMode(vf, REST_MODE);
    for (const vf of SPARE_VFS) await this.setUplink(`vfs/${vf}`, { kind: "none" });
    await this.setUplink("nic", this.#restUplink);
    // A PF that was killed before it answered may have made one.
    const vports = await must(`${this.fabric.info.api}/api/v1/vports`);
    for (const { id } of vports) await must(`${this.fabric.info.api}/api/v1/vports/${id}`, "DELETE");
    await this.recovered();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.far?.[Symbol.asyncDispose]();
    await this.fabric[Symbol.asyncDispose]();
  }
}
