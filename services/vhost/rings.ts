/**
 * A session's rings and memory, and the backend that serves them now. A ring runs when its size, addresses, kick and
 * enable have come, in any order, and there is a backend; another one can take over at any time, where it has stopped.
 */
import { Turns } from "../../shared/async/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import { VIRTIO_F_RING_PACKED } from "../../shared/layout/virtio.ts";
import type { PathFrames } from "../../shared/api/mod.ts";
import { VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES } from "../../shared/vhost_user/mod.ts";
import { BackendSlot } from "./backend_slot.ts";
import type { KeptControl } from "./control/queue.ts";
import { GuestLog } from "./guest_log.ts";
import { controlIndexOf, hasBit, pairsFor } from "./negotiation.ts";
import { PairsInUse } from "./pairs_in_use.ts";
import { gone, PathChange } from "./path_change.ts";
import type { SessionContext } from "./port_context.ts";
import type { Ask, RingPath, Succession } from "./ring_backend.ts";
import { RingMemory } from "./ring_memory.ts";
import { RingRunner, type RingsPart } from "./ring_runner.ts";
import { continuedBase, isMapped } from "./ring_start.ts";
import { type KeptObject, type Parts, valueOf } from "./standby/mod.ts";
import { type KeptRings, Vring } from "./vring.ts";

/** Rings, memory and backend of one session. */
export class Rings implements RingsPart {
  control: RingsPart["control"];
  /** Where the control queue of a process was that has ended. */
  #control: KeptControl | undefined;
  #features: bigint | undefined;
  /** Queue pairs that the port offered when the front-end came: they do not change under it. */
  #offered: number;
  /** What the front-end has agreed on with this back-end. */
  protocolFeatures = 0n;
  readonly #slot: BackendSlot;
  readonly #runner: RingRunner;
  readonly #change: PathChange;
  readonly memory: RingMemory;
  readonly log: GuestLog;
  readonly #vrings = new Map<number, Vring>();
  readonly #turns = new Turns();
  /** Told when what a standby has of it has changed. */
  onChange: () => Promise<void> = () => Promise.resolve();
  /** Rings that nobody has enabled or disabled are enabled: there are no messages for it without bit 30. */
  #startEnabled = false;
  readonly #pairsInUse = new PairsInUse();
  #closed = false;

  /** `lost` is told when nobody can serve the rings any more. */
  constructor(context: SessionContext, path: RingPath, lost: () => void) {
    this.#offered = context.link().queuePairs;
    this.#slot = new BackendSlot(context, path, {
      restoreRings: (ask) => this.#restore(ask),
      changed: () => this.onChange(),
      lost,
      queueFailed: (index, reason) => this.#runner.failed(index, reason),
    });
    this.memory = new RingMemory(this, this.#slot);
    this.log = new GuestLog(this.#slot);
    this.#runner = new RingRunner(this, this.#slot, context);
    this.#change = new PathChange(this, { slot: this.#slot, runner: this.#runner, log: context.log, lost });
  }

  /** Queue pairs of the device. */
  get queuePairs(): number {
    return pairsFor(this.#offered, this.protocolFeatures);
  }

  get path(): RingPath {
    return this.#slot.path;
  }

  /** How the guest's frames have gone, its queues and limits, of a path that tells; for the API. */
  get shown(): { frames?: PathFrames } & Partial<NonNullable<BackendSlot["rings"]>> & GuestLog["shown"] {
    const { frames, rings } = this.#slot;
    return { ...(frames === undefined ? {} : { frames }), ...rings, ...this.log.shown };
  }

  get all(): Vring[] {
    return [...this.#vrings.values()];
  }

  /** What the front-end has negotiated; 0 until then. */
  get features(): bigint {
    return this.#features ?? 0n;
  }

  /** Whether the features are known: a front-end may agree on none. */
  get isNegotiated(): boolean {
    return this.#features !== undefined;
  }

  /**
   * Sets what was negotiated. Without bit 30 all rings are enabled, once: messages may disable them, and features that
   * have it later disable nothing. A stopped ring of the other format has no position any more. The dirty log is switched
   * on and off while rings run, and nothing else changes then.
   */
  async setFeatures(features: bigint): Promise<void> {
    await this.log.turn(hasBit(features, VHOST_F_LOG_ALL), this.path === "guest");
    const wasPacked = this.isPacked;
    if (this.all.some(({ running }) => running) && (this.features ^ features) === 1n << BigInt(VHOST_F_LOG_ALL)) {
      this.#features = features;
      return;
    }
    const isFirst = this.#features === undefined;
    if (!this.all.some(({ running }) => running)) this.#pairsInUse.reset();
    if (controlIndexOf(features, this.queuePairs) !== this.controlIndex) {
      for (const ring of this.all) await this.stop(ring);
    }
    this.#features = features;
    this.#runner.acceptAll();
    if (!hasBit(features, VHOST_USER_F_PROTOCOL_FEATURES)) {
      this.#startEnabled = true;
      for (const ring of this.all) ring.enabled = true;
    }
    if (!isFirst && wasPacked !== this.isPacked) {
      for (const ring of this.all.filter(({ running }) => !running)) ring.base = undefined;
    }
    await this.settleAll();
  }

  /** Whether the rings are packed ones. */
  get isPacked(): boolean {
    return hasBit(this.features, VIRTIO_F_RING_PACKED);
  }

  /** The number of the control queue, if there is one. */
  get controlIndex(): number | undefined {
    return controlIndexOf(this.features, this.queuePairs);
  }

  /** The driver uses so many queue pairs from now on; answers why not, if their rings cannot be served. */
  useQueuePairs(pairs: number): Promise<string | undefined> {
    return this.#pairsInUse.use(pairs, () => this.settleAll());
  }

  /** The driver accepts these of its offloads from now on; answers why not, if it has not negotiated them. */
  useOffloads(offloads: bigint): Promise<string | undefined> {
    return this.#runner.useOffloads(offloads);
  }

  /** Ring `index`, which may be new. */
  at(index: number): Vring {
    let ring = this.#vrings.get(index);
    if (!ring) {
      ring = new Vring(index);
      ring.enabled = this.#startEnabled;
      this.#vrings.set(index, ring);
    }
    return ring;
  }

  /** Messages of the front-end and changes of the backend come one after the other. */
  exclusively<T>(step: () => Promise<T>): Promise<T> {
    return this.#turns.take(() => step().finally(() => this.#slot.endStep()));
  }

  settingsChanged(): void {
    this.#slot.settingsChanged();
  }

  attach(): Promise<void> {
    return this.#slot.attach();
  }

  /** Has another data path serve the rings; throws the reason if that cannot be, with nothing changed. */
  switchTo(path: RingPath): Promise<void> {
    return this.exclusively(() => this.#closed ? gone() : this.#change.to(path));
  }

  /** Puts everything that was in force in force again, in a NIC that has just started. */
  async #restore(ask: Ask): Promise<void> {
    await this.memory.tell(ask);
    await this.log.tell(ask);
    await this.#runner.continueWith(ask, this.data.filter(({ running }) => running));
  }

  /** All rings but the control queue. */
  get data(): Vring[] {
    return this.all.filter(({ index }) => index !== this.controlIndex);
  }

  /**
   * Starts or stops every ring, as what has been said of it demands. Receive rings first: nobody's frame may come before
   * there is room for it.
   */
  async settleAll(): Promise<void> {
    for (const ring of this.all.sort((a, b) => a.index % 2 - b.index % 2)) await this.settle(ring);
  }

  /**
   * Starts or stops a ring, as what has been said of it demands. A disabled transmit ring keeps its frames. The text
   * would have them thrown away; but rust-vmm's and Cloud Hypervisor's pause disables rings, and expects them as they were.
   */
  async settle(ring: Vring): Promise<void> {
    const isOn = ring.enabled && this.#features !== undefined && this.#pairsInUse.has(ring, this.controlIndex);
    if (ring.running && !isOn) return await this.stop(ring);
    // A ring may be described before the memory in which it lies: it waits for that.
    if (!ring.running && isOn && ring.ready && isMapped(ring, this.memory.table)) await this.#runner.start(ring);
  }

  /** Stops a ring between two frames; its base is where it would go on. */
  stop(ring: Vring): Promise<void> {
    return this.#runner.stop(ring);
  }

  /** Gives a running ring its new call descriptor. */
  setCall(ring: Vring, fd: Fd | undefined): Promise<void> {
    return this.#runner.setCall(ring, fd);
  }

  /** Says where a ring's used ring is logged. */
  async setUsedLog(ring: Vring, address: bigint | undefined): Promise<void> {
    if (ring.usedLog === address) return;
    ring.usedLog = address;
    await this.#runner.setUsedLog(ring);
  }

  /** Stops all rings and resets them; memory stays. Each ring keeps its base and its error descriptor. */
  async reset(): Promise<void> {
    for (const ring of this.all) await this.stop(ring);
    this.#startEnabled = this.#features !== undefined && !hasBit(this.features, VHOST_USER_F_PROTOCOL_FEATURES);
    this.#pairsInUse.reset();
    this.#runner.acceptAll();
    for (const ring of this.all) {
      ring.reset();
      ring.enabled = this.#startEnabled;
    }
  }

  /** What whoever stands by has of it. */
  get kept(): Parts {
    const { memory, inflight } = this.memory.kept;
    const state: KeptRings = {
      ...{ features: this.#features, protocolFeatures: this.protocolFeatures, startEnabled: this.#startEnabled },
      ...{ pairs: this.#pairsInUse.pairs, declined: this.#runner.declined, offered: this.#offered },
    };
    const control = this.control?.kept;
    return {
      ...{ rings: { value: state }, ...(control ? { control: { value: control } } : {}) },
      ...{ memory, ...(inflight ? { inflight } : {}), log: this.log.kept, ...this.#slot.kept },
      ...Object.fromEntries(this.all.map((ring) => [`ring ${ring.index}`, ring.kept])),
    };
  }

  /** Goes on with the rings of a process that has ended, before any of them is served. */
  async adopt(object: KeptObject): Promise<void> {
    const { features, startEnabled, pairs, declined, ...kept } = valueOf<KeptRings>(object, "rings");
    [this.#offered, this.protocolFeatures] = [kept.offered, kept.protocolFeatures];
    [this.#features, this.#startEnabled, this.#runner.declined] = [features, startEnabled, declined];
    this.#pairsInUse.pairs = pairs;
    this.memory.adopt(object);
    this.log.adopt(object);
    const rings = [...object].filter(([name]) => name.startsWith("ring ")).map(([, part]) => Vring.adopt(part));
    for (const ring of rings) this.#vrings.set(ring.index, ring);
    this.#control = object.has("control") ? valueOf<KeptControl>(object, "control") : undefined;
    await this.#slot.adopt(object, this.#succession);
  }

  get #succession(): Omit<Succession, "wasAsked"> {
    const rings = this.data.filter(({ running }) => running);
    return {
      rings,
      ringAt: (index) => this.at(index),
      tellMemory: async (ask) => {
        await this.memory.tell(ask);
        await this.log.tellAgain(ask);
      },
      startAgain: (ask, ring) => this.#runner.startAgain(ask, ring),
    };
  }

  /** Serves the rings again, whose engine, or whose NIC, goes on with them: those that it does not, and the control queue. */
  resume(): Promise<void> {
    return this.exclusively(async () => {
      const { controlIndex } = this;
      const control = this.all.find(({ index, running }) => index === controlIndex && running);
      if (control) {
        control.running = false;
        control.base = continuedBase(control, this.memory.table, this.#control) ?? control.base;
        await this.settle(control);
      }
      await this.#slot.goOn(this.#succession, () => this.#change.begin());
      // The process that has ended may have stopped rings for a change of the data path that it did not finish.
      await this.settleAll();
    });
  }

  /** The end: gives everything back. */
  close(reason: string): Promise<void> {
    this.control?.stop();
    return this.exclusively(async () => {
      this.#closed = true;
      await this.#slot.release(reason);
      for (const ring of this.all) ring.close();
      this.#vrings.clear();
      this.memory.close();
      this.log.close();
    });
  }
}
