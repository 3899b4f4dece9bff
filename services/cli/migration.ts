/**
 * A VF's policy and address on their way to another fabric. The target VF is made ready while the guest still runs at the
 * source. While it stands still both VFs swap their addresses, the source first: nobody has the guest's twice, and
 * somebody has it but for the time of one request. What fails is taken back.
 */
import {
  type ModeRequest,
  oneLine,
  type Peer,
  RETURN_MINIMAL,
  type Vf,
  type VfMode,
  VfPolicy,
} from "../../shared/api/mod.ts";
import { UsageError } from "./values.ts";

/** Whose an address is says the VF that has it; a mirror names a VF of its own fabric; hardware is what the host has. */
const KEPT_FIELDS = ["mac", "macFixed", "mirror", "hardware"];
const MOVED_FIELDS = Object.keys(VfPolicy.shape).filter((field) => !KEPT_FIELDS.includes(field));
/** How long a fabric may take to give an address up, or to take it: all of a swap is over before a guest comes back. */
const SWAP_MS = 2000;

/** The address is not where it is to be: the message says where it is. */
export class SwapFailure extends UsageError {}

/** What of a mode moves. */
type ModeOf = { mode: Vf["mode"]; dataPath?: Vf["dataPath"] };

/** A VF at its fabric. */
export class PlacedVf {
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

  /** As `patch`, as soon as can be: nothing else is looked at on the way. */
  async set(patch: Record<string, unknown>, timeoutMs?: number): Promise<void> {
    await this.#fabric.ask("PATCH", `/api/v1/vfs/${this.id}`, patch, timeoutMs, { prefer: RETURN_MINIMAL });
  }

  /** Gives it an address. */
  async address({ mac, macFixed }: Vf): Promise<void> {
    await this.set({ mac, macFixed }, SWAP_MS);
  }

  /** Which mode it is in, also while nobody is on it. */
  getMode(): Promise<VfMode> {
    return this.#fabric.ask("GET", `/api/v1/vfs/${this.id}/mode`);
  }

  setMode(mode: ModeRequest): Promise<unknown> {
    return this.#fabric.ask("PUT", `/api/v1/vfs/${this.id}/mode`, mode);
  }
}

/** A VF's policy on its way to another fabric. */
export class Migration {
  readonly source: PlacedVf;
  readonly target: PlacedVf;
  /** Both as they were. */
  readonly from: Vf;
  readonly before: Vf;
  /** Whether the target VF has the guest's address. */
  isSwapped = false;
  /** For how long the target did not have the address yet, since the guest was heard to stand still. */
  swapMs = 0;

  private constructor(source: PlacedVf, target: PlacedVf, from: Vf, before: Vf) {
    [this.source, this.target, this.from, this.before] = [source, target, from, before];
  }

  /** Looks at both VFs. Throws why the guest of the one cannot move to the other; nothing has changed then. */
  static async check(source: PlacedVf, target: PlacedVf): Promise<Migration> {
    const [near, far] = await Promise.all([source.all(), target.all()]);
    const [from, before] = [near[source.id], far[target.id]];
    if (!from) throw new UsageError(`there is no vf ${source.id}: the fabric has ${near.length}`);
    if (!before) {
      throw new UsageError(`the target has no vf ${target.id}: it has ${far.length}; say another by --to-vf`);
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

  /**
   * Gives both VFs the addresses that they have: whoever may not do that is told before anything changes, and a swap finds
   * its connections open.
   */
  async rehearse(): Promise<void> {
    await Promise.all([this.source.address(this.from), this.target.address(this.before)]);
  }

  /** Makes the target VF as the source is, but for the address and the mode. */
  async prepare(): Promise<void> {
    await this.target.set(fieldsOf(this.from, MOVED_FIELDS));
  }

  /** Puts the target VF into a mode; `now` is the one that it is in. */
  async setMode({ mode, dataPath }: ModeOf, now: ModeOf): Promise<void> {
    if (mode === null || (mode === now.mode && dataPath === now.dataPath)) return;
    await this.target.setMode({ mode, ...(mode === "emulated" && dataPath ? { dataPath } : {}) });
  }

  /**
   * The VFs swap their addresses. Throws with both as they were, or says what is not. `isGiven`: the source VF has its new
   * one already; nobody has had the guest's since `sinceMs`.
   */
  async swap({ isGiven = false, sinceMs = performance.now() } = {}): Promise<void> {
    try {
      if (!isGiven) await this.source.address(this.before);
      await this.target.address(this.from);
      this.isSwapped = true;
      this.swapMs = Math.round((performance.now() - sinceMs) * 10) / 10;
    } catch (error) {
      await this.swapBack(`the target does not get ${this.from.mac} (${oneLine(error)})`);
      throw new SwapFailure(`the target does not get ${this.from.mac} (${oneLine(error)}): the source has it again`);
    }
  }

  /** The VFs have their own addresses again. Throws what is not so, after `why`. */
  async swapBack(why: string): Promise<void> {
    const { mac } = this.from;
    await this.target.address(this.before).catch((error) => {
      throw new SwapFailure(
        `${why}; and whether the target's vf ${this.target.id} has it is not known (${oneLine(error)}): give it to one`,
      );
    });
    await this.source.address(this.from).catch((error) => {
      throw new SwapFailure(`${why}; and the source does not take ${mac} again (${oneLine(error)}): give it by hand`);
    });
    this.isSwapped = false;
  }

  /** The guest stays, also if it has just come to stand still: the source VF has its address. */
  async keepAtSource(): Promise<void> {
    const { mac } = await this.source.get();
    if (mac === this.before.mac) await this.source.address(this.from);
  }

  /** The source is as nobody had configured it, but for the address. */
  tidy(): Promise<Vf> {
    return this.source.patch(fieldsOf(this.before, MOVED_FIELDS));
  }

  /** The target is as it was, but for the mode. */
  async undo(): Promise<void> {
    await this.target.patch(fieldsOf(this.before, MOVED_FIELDS));
  }
}

/** Whether a guest has its rings served. */
export function runs({ queues }: Vf): boolean {
  return queues?.some(({ state }) => state === "running") === true;
}

function fieldsOf(vf: Vf, fields: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(vf).filter(([field]) => fields.includes(field)));
}
