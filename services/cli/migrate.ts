/**
 * `fabric migrate`: a VF's policy moves to another fabric with its guest. The guest itself is moved by its hypervisor,
 * such as QEMU's `migrate`; here the target VF is made ready, and has the guest's address as soon as the guest runs there.
 * Both VFs swap their addresses, the source first: nobody has the guest's twice, and somebody has it but for the time of
 * one request. What fails before leaves the guest where it is.
 */
import type { Command } from "commander";
import { oneLine, Peer, type Vf, type VfMode, VfPolicy, wholeNumber } from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { findTarget } from "./find.ts";
import { oneId, UsageError } from "./values.ts";

/** How often the target VF is looked at. */
const LOOK_MS = 5;
/** Whose an address is says the VF that has it; a mirror names a VF of its own fabric. */
const KEPT_FIELDS = ["mac", "macFixed", "mirror"];
const MOVED_FIELDS = Object.keys(VfPolicy.shape).filter((field) => !KEPT_FIELDS.includes(field));

interface MigrateOptions {
  to?: string;
  toRunDir?: string;
  toVf?: number;
  timeout: number;
}

/** What it has come to. */
interface Moved {
  from: Vf;
  to: Vf;
}

/** A VF at its fabric. */
class Seat {
  readonly id: number;
  readonly #fabric: Peer;

  constructor(fabric: Peer, id: number) {
    this.#fabric = fabric;
    this.id = id;
  }

  all(): Promise<Vf[]> {
    return this.#fabric.ask("GET", "/api/v1/vfs");
  }

  get(): Promise<Vf> {
    return this.#fabric.ask("GET", `/api/v1/vfs/${this.id}`);
  }

  patch(patch: Record<string, unknown>): Promise<Vf> {
    return this.#fabric.ask("PATCH", `/api/v1/vfs/${this.id}`, patch);
  }

  setMode(mode: Pick<VfMode, "mode" | "dataPath">): Promise<unknown> {
    return this.#fabric.ask("PUT", `/api/v1/vfs/${this.id}/mode`, mode);
  }
}

/** A VF's policy on its way to another fabric. */
class Migration {
  readonly #source: Seat;
  readonly #target: Seat;
  /** Both as they were. */
  #from: Vf;
  #before: Vf;

  private constructor(source: Seat, target: Seat, from: Vf, before: Vf) {
    [this.#source, this.#target, this.#from, this.#before] = [source, target, from, before];
  }

  /** Looks at both VFs. Throws why the guest of the one cannot move to the other; nothing has changed then. */
  static async check(source: Seat, target: Seat): Promise<Migration> {
    const [near, far] = await Promise.all([source.all(), target.all()]);
    const [from, before] = [near[source.id], far[target.id]];
    if (!from) throw new UsageError(`there is no vf ${source.id}: the fabric has ${near.length}`);
    if (!before) {
      throw new UsageError(`the target has no vf ${target.id}: it has ${far.length}; say another by --to-vf`);
    }
    if (from.plugin !== undefined) {
      const leave = `fabric vf mode ${source.id} emulated`;
      throw new UsageError(`a plugin drives vf ${source.id} from inside its guest: leave it first, by ${leave}`);
    }
    for (const [where, vf] of [["", from], ["the target's ", before]] as const) {
      if (vf.mode === null) throw new UsageError(`the NIC of ${where}vf ${vf.id} does not answer`);
      if (vf.vport !== null) throw new UsageError(`${where}vf ${vf.id} is allotted to vport ${vf.vport}`);
      if (vf.uplink !== null) throw new UsageError(`${where}vf ${vf.id} has something of its host behind it`);
    }
    if (runs(before)) {
      throw new UsageError(`a guest runs on the target's vf ${target.id}: say a free one by --to-vf`);
    }
    const taken = far.find(({ mac }) => mac === from.mac) ?? near.find(({ mac }) => mac === before.mac);
    if (taken) throw new UsageError(`both fabrics have the address ${taken.mac}: give vf ${taken.id} another one`);
    return new Migration(source, target, from, before);
  }

  /** Makes the target VF as the source is, but for the address. */
  async prepare(): Promise<Vf> {
    await this.#target.patch(fieldsOf(this.#from, MOVED_FIELDS));
    await this.#setMode(this.#from, this.#before);
    return this.#before;
  }

  async #setMode({ mode, dataPath }: Vf, now: Vf): Promise<void> {
    if (mode === null || (mode === now.mode && dataPath === now.dataPath)) return;
    await this.#target.setMode({ mode, ...(mode === "emulated" && dataPath ? { dataPath } : {}) });
  }

  /** Waits until the guest runs at the target. Throws when `signal` says that it has not. */
  async arrived(signal: AbortSignal): Promise<void> {
    while (!runs(await this.#target.get())) {
      signal.throwIfAborted();
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** The VFs swap their addresses; the source is as nobody had configured it, but for that. */
  async handOver(): Promise<Moved> {
    const [own, other] = [addressOf(this.#from), addressOf(this.#before)];
    await this.#source.patch(other);
    let to: Vf;
    try {
      to = await this.#target.patch(own);
    } catch (error) {
      await this.#source.patch(own).catch(() => {});
      const how = `give it to the target's vf ${this.#target.id} by hand`;
      throw new UsageError(`the target does not take ${this.#from.mac} (${oneLine(error)}): ${how}`);
    }
    return { from: await this.#source.patch(fieldsOf(this.#before, MOVED_FIELDS)), to };
  }

  /** The target is as it was. */
  async undo(): Promise<void> {
    await this.#target.patch(fieldsOf(this.#before, MOVED_FIELDS));
    await this.#setMode(this.#before, this.#from);
  }
}

/** Whether a guest has its rings served. */
function runs({ queues }: Vf): boolean {
  return queues?.some(({ state }) => state === "running") === true;
}

function fieldsOf(vf: Vf, fields: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(vf).filter(([field]) => fields.includes(field)));
}

function addressOf({ mac, macFixed }: Vf): Record<string, unknown> {
  return { mac, macFixed };
}

/** Aborts after a time, or when the user interrupts. */
function patience(seconds: number): Disposable & { signal: AbortSignal } {
  const ended = new AbortController();
  const late = `no guest ran at the target within ${seconds} s (--timeout): it goes on where it is`;
  const timer = setTimeout(() => ended.abort(new UsageError(late)), seconds * 1000);
  const interrupted = () => ended.abort(new UsageError("interrupted: the guest goes on where it is"));
  Deno.addSignalListener("SIGINT", interrupted);
  return {
    signal: ended.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      Deno.removeSignalListener("SIGINT", interrupted);
    },
  };
}

/** Adds `migrate`. */
export function migrateCommands(program: Command, context: Context): void {
  examples(
    program.command("migrate <n>").description("move a VF's policy and address to another fabric, with its guest")
      .option("--to <url>", "the API of the PF there (its token: RINGFABRIC_TO_TOKEN)")
      .option("--to-run-dir <dir>", "the run directory of the fabric there, if it is on this host")
      .option("--to-vf <n>", "which VF there, if it is not of the same number", wholeNumber(0, 255))
      .option("--timeout <seconds>", "how long the guest is waited for", wholeNumber(1, 86_400), 600),
    "migrate 1 --to http://10.0.0.2:8080",
    "migrate 1 --to-run-dir /run/other --to-vf 3",
  ).action(async (n: string, { toVf, timeout, ...where }: MigrateOptions) => {
    const id = oneId(n);
    const [here, there] = [context.fabric, findTarget(where)];
    const source = new Seat(new Peer("this fabric", here.api, here.token), id);
    const target = new Seat(new Peer("the target", there.api, there.token), toVf ?? id);
    const migration = await Migration.check(source, target);
    using waiting = patience(timeout);
    try {
      const { id, socket } = await migration.prepare();
      context.progress.say(`vf ${id} there is ready: move the guest to ${socket}`);
      await migration.arrived(waiting.signal);
    } catch (error) {
      await migration.undo().catch((cause) => {
        throw new UsageError(`${oneLine(error)}; and the target's vf is not as it was (${oneLine(cause)})`);
      });
      throw error;
    }
    const moved = await migration.handOver();
    context.show(moved, () => `vf ${id} has moved: ${moved.to.mac} is vf ${moved.to.id} of ${there.api} now`);
  });
}
