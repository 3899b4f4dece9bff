/** One VF's lease: the right to drive its queues. It belongs to one connection of the device socket, and ends once. */
import type { Request } from "../../shared/device/mod.ts";
import { RING_ENTRIES_MAX } from "../../shared/api/limits.ts";
import { type Engine, Tenant, type TenantLimits } from "../../shared/engine/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import type { Hold } from "./hold.ts";
import { RegisterPage } from "./registers.ts";

type AttachRequest = Extract<Request, { op: "attach" }>;

/** Memory that a driver of the hypervisor's may map beside that of the guest whose buffers it hands on. */
const OWN_BYTES_MAX = 16 * 1024 ** 2;

/** Whose a lease is, and how it came to it. */
export interface LeaseTerms {
  /** The hold with whose token a guest came; `undefined` for the hypervisor's own services, which need none. */
  hold: Pick<Hold, "id"> | undefined;
  /** How long the queues go on after the owner's death; a guest that drives its VF itself has no successor. */
  graceMs: number;
}

/** A connection of the device socket, for whoever stands by for this process. */
export interface LeaseConnection {
  /** Its name: no other has it. */
  id: string;
  fd: Fd;
  guest: boolean;
}

/** One VF's lease. */
export class Lease extends Tenant {
  readonly owner: string;
  readonly mode: "emulated" | "passthrough";
  readonly plugin: string | undefined;
  /** In emulated mode, how frames go. */
  readonly dataPath: AttachRequest["dataPath"];
  readonly hold: Pick<Hold, "id"> | undefined;
  readonly graceMs: number;
  /** The rings that ran when the lease was taken over from a dead owner, and where packed ones go on. */
  readonly inherited = new Map<string, number>();
  /** Ends it when its owner has died and nobody has taken it over. */
  orphanTimer: ReturnType<typeof setTimeout> | undefined;
  /** Told why, when the NIC ends the lease: its connection ends with it. */
  onEnded: (reason: string) => void = () => {};
  /** With what it was asked for. */
  readonly request: AttachRequest;
  /** Its owner's connection, while there is one. */
  connection: LeaseConnection | undefined;
  /** Its owner is in this process and ends with it: an uplink. */
  isOwn = false;
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
    this.request = request;
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
    return (this.#registers ?? this.#takeRegisters()).fd.number;
  }

  #takeRegisters(before?: Fd): RegisterPage {
    this.queues.hasRegisters = true;
    return this.#registers = new RegisterPage(this.#engine.arena, this.pool, before);
  }

  /** Has the page of the engine for which this process stands by, which becomes the lease's. */
  learnRegisters(page: Fd): void {
    if (this.#registers) page.close();
    else this.#takeRegisters(page);
  }

  /** The page with the doorbells, if there is one. It stays the lease's. */
  get registerPage(): Fd | undefined {
    return this.#registers?.fd;
  }

  /** Finds the page again after the engine's whole state was replaced. */
  mapRegisters(): void {
    this.#registers?.map();
  }

  /** Takes the doorbells away. No queue uses them any more. */
  closeRegisters(): void {
    this.#registers?.close();
    this.#registers = undefined;
    this.queues.hasRegisters = false;
  }
}
