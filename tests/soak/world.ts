/**
 * What the soak runs in: a fabric with four built-in guests, which send each other checked, numbered streams, and two
 * VFs for guests that come and go. What an action needs to do something to it is here; what it may do is in `actions.ts`.
 */
import type { UplinkSpec } from "../../shared/api/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { ask, must, setMode, TestGuest } from "../support/guests.ts";
import { until } from "../support/wait.ts";

/** Services that `up` starts again, in their order. */
export const SERVICES = ["nic", "pf", "vhost", "vf"] as const;
export type ServiceName = typeof SERVICES[number];
/** Built-in guests, on the first VFs. */
export const GUESTS = 4;
/** VFs without a built-in guest. */
export const SPARE_VFS = [4, 5] as const;
/** How long everything may take to be as it should be again. */
const RECOVERY_MS = 45_000;
/** The mode in which everything begins and ends. */
const REST_MODE = { mode: "emulated", dataPath: "copy" };

/** A fabric and its guests. */
export class World implements AsyncDisposable {
  readonly fabric: TestFabric;
  readonly guests: readonly TestGuest[];

  private constructor(fabric: TestFabric) {
    this.fabric = fabric;
    this.guests = Array.from({ length: GUESTS }, (_, i) => TestGuest.of(fabric, i));
  }

  static async start(): Promise<World> {
    const world = new World(
      await TestFabric.start(GUESTS + SPARE_VFS.length, ["--guests", String(GUESTS), "--no-standby"]),
    );
    try {
      await world.recovered();
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  guest(index: number): TestGuest {
    const guest = this.guests[index];
    if (!guest) throw new Error(`there is no guest ${index}`);
    return guest;
  }

  /** Kills a service as the kernel would that has no memory left. */
  killService(name: ServiceName): void {
    const pid = this.fabric.pids()[name];
    // It may have died already, in the same step.
    if (pid !== undefined) Deno.kill(pid, "SIGKILL");
  }

  killGuest(index: number): void {
    const pid = this.fabric.guestPid(index);
    if (pid !== undefined) Deno.kill(pid, "SIGKILL");
  }

  /** Has a service stand still for so long. */
  async freeze(name: ServiceName, ms: number): Promise<void> {
    const pid = this.fabric.pid(name);
    Deno.kill(pid, "SIGSTOP");
    try {
      await new Promise((resolve) => setTimeout(resolve, ms));
    } finally {
      // It may have been killed meanwhile.
      if (this.fabric.pids()[name] === pid) Deno.kill(pid, "SIGCONT");
    }
  }

  async setMode(vf: number, mode: Record<string, unknown>): Promise<void> {
    await setMode(this.fabric, vf, mode);
  }

  async patch(vf: number, patch: Record<string, unknown>): Promise<void> {
    await must(`${this.fabric.info.api}/api/v1/vfs/${vf}`, "PATCH", patch);
  }

  async #setUplink(spec: UplinkSpec): Promise<void> {
    await must(`${this.fabric.info.api}/api/v1/nic/uplink`, "PUT", spec);
  }

  /** Records what goes out, for a moment. */
  async useUplink(): Promise<void> {
    const record = `${this.fabric.runDir}/soak.pcap`;
    await this.#setUplink({ kind: "pcap", record });
    await this.#setUplink({ kind: "none" });
    await Deno.remove(record).catch(() => {});
  }

  /** Adds a guest without a VF, and takes it away again. */
  async comeAndGoVport(): Promise<void> {
    const { id } = await must(`${this.fabric.info.api}/api/v1/vports`, "POST", {});
    await must(`${this.fabric.info.api}/api/v1/vports/${id}`, "DELETE");
  }

  /** Waits until every service is ready, every guest has its back-end, and no operation goes on. */
  async recovered(): Promise<void> {
    let missing = "";
    await until(
      "everything to be ready",
      async () => {
        missing = (await Promise.all([
          ...SERVICES.map((name) => this.#unreadiness(name, this.fabric.url(name))),
          ...this.guests.map(({ api }, i) => this.#unreadiness(`guest ${i}`, api)),
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
    await this.#setUplink({ kind: "none" });
    // A PF that was killed before it answered may have made one.
    const vports = await must(`${this.fabric.info.api}/api/v1/vports`);
    for (const { id } of vports) await must(`${this.fabric.info.api}/api/v1/vports/${id}`, "DELETE");
    await this.recovered();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fabric[Symbol.asyncDispose]();
  }
}
