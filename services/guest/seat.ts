/**
 * A guest's place: the process in which it runs, from which it leaves, and to which it comes. What runs is decided by
 * one rule: a guest that was stopped goes on where its VF has its address. The address is owned once, so the guest runs
 * once, whoever of those that move it dies in the middle.
 */
import * as L from "../../shared/layout/guest.ts";
import { ApiError, type GuestConfig, type GuestSeat } from "../../shared/api/mod.ts";
import type { Host } from "./host.ts";
import type { Interface } from "./interface.ts";
import type { Machine } from "./machine.ts";
import type { Shell } from "./shell.ts";
import type { VirtioPath } from "./virtio_path.ts";

/** How long what was handed to the data path may take to be sent. */
const QUIESCE_MS = 500;
/** How long the rings of a guest that runs again are waited for. */
const RINGS_MS = 1000;
/** What the control thread and the worker tell each other by: neighbours in the RAM, which stay with them. */
const [KEPT_FROM, KEPT_TO] = [L.GC + L.GC_REQUEST, L.GC + L.GC_ASLEEP + 4];

/** What a seat is made of. */
export interface SeatParts {
  machine: Machine;
  host: Host;
  shell: Shell;
  virtio: VirtioPath;
  link: Interface;
}

/** Why nothing can be asked of a guest. */
const REASONS: Partial<Record<GuestSeat, string>> = {
  stopped: "the guest is being moved to another host: ask again in a moment",
  gone: "the guest has moved to another host: ask it there",
  waiting: "no guest is here: this one waits for a guest that moves here (fabric migrate)",
  arriving: "a guest is on its way to here: ask again when it has come",
  arrived: "a guest has come, and begins to run in a moment: ask again",
};

/** The seat. */
export class Seat {
  readonly #parts: SeatParts;
  #state: GuestSeat = "running";
  #attached = Promise.resolve();
  /** Told what the interface is to be, while no guest runs: whether the VF has the guest's address. */
  onConfig: (hasAddress: boolean) => void = () => {};
  /** Told when the state has changed. */
  onChange: () => void = () => {};

  constructor(parts: SeatParts) {
    this.#parts = parts;
    // While a guest is copied its rings stay where they are.
    parts.shell.mayChange = () => this.#state === "running";
  }

  get state(): GuestSeat {
    return this.#state;
  }

  set state(state: GuestSeat) {
    this.#state = state;
    this.onChange();
  }

  get mac(): string {
    return this.#parts.host.mac;
  }

  /** Throws unless a guest runs here. */
  mustRun(): void {
    const reason = REASONS[this.#state];
    if (reason !== undefined) throw new ApiError(409, reason, undefined, "no-guest");
  }

  /** Throws unless the seat is in one of these states. */
  mustBe(what: string, ...states: GuestSeat[]): void {
    if (states.includes(this.#state)) return;
    throw new ApiError(409, `cannot ${what}: this seat is ${this.#state}`, "seat", "wrong-seat");
  }

  /**
   * The hypervisor says what the interface is to be, asked when the seat was `asked`. If that is not so any more, the
   * answer may be from before the VFs have swapped their addresses.
   */
  heard(config: GuestConfig, asked: GuestSeat): void {
    const { link } = this.#parts;
    if (asked !== this.#state) return;
    if (this.#state === "running" || this.#state === "leaving") link.apply(config);
    else this.onConfig(config.mac === this.mac);
  }

  /** No guest is here from the start: one is waited for. The virtio path's connection is not kept yet. */
  wait(): Promise<void> {
    this.#state = "waiting";
    return this.empty();
  }

  /** Stops the guest: nothing writes its RAM any more. Throws if what is to be sent does not go out; it runs on then. */
  async stop(): Promise<void> {
    const { machine, host } = this.#parts;
    host.isStill = true;
    try {
      await machine.ask({ op: "quiesce", deadlineMs: QUIESCE_MS });
      await machine.ask({ op: "freeze" });
    } catch (error) {
      this.#letRun();
      throw new ApiError(409, `the guest could not be stopped: ${(error as Error).message}`);
    }
  }

  /** The guest that was stopped goes on here. */
  async goOn(): Promise<void> {
    await this.#parts.machine.ask({ op: "thaw" });
    this.#letRun();
    this.state = "running";
  }

  #letRun(): void {
    this.#parts.host.isStill = false;
    this.#parts.shell.resume();
  }

  /** Whatever guest was here is gone, with all that it had. */
  async empty(): Promise<void> {
    const { machine, host, virtio } = this.#parts;
    host.isStill = true;
    host.forget();
    await machine.ask({ op: "freeze" });
    await virtio.detach();
    this.#write(new Uint8Array(machine.memory.buffer.byteLength));
    await machine.ask({ op: "boot" });
    this.state = "waiting";
  }

  /** A guest has come whose RAM is `memory`. It is given its rings, and waits for its address. */
  async take(memory: Uint8Array, change: (ram: DataView) => void): Promise<void> {
    const { machine, virtio } = this.#parts;
    this.#write(memory);
    const { view } = machine.memory;
    for (const field of [L.GC_RUNNING, L.GC_PATH, L.GC_CAPTURE, L.GC_CAPTURE_HEAD, L.GC_CAPTURE_TAIL]) {
      view.setUint32(L.GC + field, 0, true);
    }
    change(view);
    // The rings that it had are on another host, with the buffers that were to be filled.
    await machine.ask({ op: "remove", path: 1 });
    await machine.ask({ op: "remove", path: 0 });
    await machine.ask({ op: "thaw" });
    this.#attached = virtio.attach();
    this.state = "arrived";
  }

  /** The guest that has come runs, and tells its neighbours where it is. Resolves when it has its rings, or soon. */
  async run(): Promise<void> {
    const { host, virtio } = this.#parts;
    host.isStill = false;
    if (virtio.connected) virtio.use();
    this.state = "running";
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise((resolve) => timer = setTimeout(resolve, RINGS_MS));
    await Promise.race([this.#attached, late]);
    clearTimeout(timer);
  }

  /** Writes all of the RAM, but for the words by which the control thread and the worker find each other. */
  #write(memory: Uint8Array): void {
    const ram = new Uint8Array(this.#parts.machine.memory.buffer);
    ram.set(memory.subarray(0, KEPT_FROM));
    ram.set(memory.subarray(KEPT_TO), KEPT_TO);
  }
}
