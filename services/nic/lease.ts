/** One VF's lease: the right to drive its queues. It belongs to one connection of the device socket, and ends once. */
import type { Request } from "../../shared/device/mod.ts";
import { RING_ENTRIES_MAX } from "../../shared/api/limits.ts";
import { type Engine, Tenant, type TenantLimits } from "../../shared/engine/mod.ts";
import type { Hold } from "./hold.ts";
import { RegisterPage } from "./registers.ts";

type AttachRequest = Extract<Request, { op: "attach" }>;

/** Memory that a driver of the hypervisor's may map beside that of the guest whose buffers it hands on. */
const OWN_BYTES_MAX = 16 * 1024 ** 2;

/** Whose a lease is, and how it came to it. */
export interface LeaseTerms {
  /** The hold with whose token a guest came; `undefined` for the hypervisor's own services, which need none. */
  hold: Hold | undefined;
  /** How long the queues go on after the owner's death; a guest that drives its VF itself has no successor. */
  graceMs: number;
}

/** One VF's lease. */
export class Lease extends Tenant {
  readonly owner: string;
  readonly mode: "emulated" | "passthrough";
  readonly plugin: string | undefined;
  /** In emulated mode, how frames go. */
  readonly dataPath: AttachRequest["dataPath"];
  readonly hold: Hold | undefined;
  readonly graceMs: number;
  /** The rings that ran when the lease was taken over from a dead owner, and where packed ones go on. */
  readonly inherited = new Map<string, number>();
  /** Ends it when its owner has died and nobody has taken it over. */
  orphanTimer: ReturnType<typeof setTimeout> | undefined;
  /** Told why, when the NIC ends the lease: its connection ends with it. */
  onEnded: (reason: string) => void = () => {};
  readonly #engine: Engine;
  #registers: RegisterPage | undefined;

  constructor(engine: Engine, pool: number, limits: TenantLimits, request: AttachRequest, terms: LeaseTerms) {
    // What a guest drives itself is passthrough, whatever it calls it.
    const mode = terms.hold ? "passthrough" : request.mode;
    // The hypervisor's own drivers have rings as long as they make them, and their memory beside the guest's.
    const bytesMax = limits.bytesMax + OWN_BYTES_MAX;
    const own = { bytesMax, receivesMax: RING_ENTRIES_MAX, submissionsMax: RING_ENTRIES_MAX };
    super(engine, pool, mode === "emulated" ? { ...limits, ...own } : limits);
    this.#engine = engine;
    this.owner = request.owner;
    this.mode = mode;
    // The guest behind that engine is interrupted by the policy there: two waits would add up.
    this.queues.areDeferred = this.mode === "passthrough";
    this.plugin = request.plugin;
    this.dataPath = this.mode === "emulated" ? request.dataPath : undefined;
    this.hold = terms.hold;
    this.graceMs = terms.graceMs;
  }

  /** Whether its owner is a guest that drives its VF itself. */
  get byGuest(): boolean {
    return this.hold !== undefined;
  }

  /** The descriptor of the page with the lease's doorbells; it stays the NIC's. */
  registers(): number {
    this.#registers ??= new RegisterPage(this.#engine.arena, this.pool);
    this.queues.hasRegisters = true;
    return this.#registers.fd.number;
  }

  /** Takes the doorbells away. No queue uses them any more. */
  closeRegisters(): void {
    this.#registers?.close();
    this.#registers = undefined;
    this.queues.hasRegisters = false;
  }
}
