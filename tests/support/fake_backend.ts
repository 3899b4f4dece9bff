/** A ring backend as a test plays it: it knows which rings run and where, and what it was asked. */
import { DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import { fileStatus } from "../../shared/os/mod.ts";
import type { RingBackend, RingBackendEvents } from "../../services/vhost/ring_backend.ts";

/** What the backends of one session share. */
export interface BackendWorld {
  /** What they were asked. */
  log: string[];
  /** Refusals to come, by operation. */
  troubles: Map<string, (Error | undefined)[]>;
  /** Used indices, which are in the guest's memory: where split rings go on. */
  used: Map<number, number>;
}

/** Whoever serves the rings, as the test plays it. */
export class FakeBackend implements RingBackend {
  /** Where each running ring stands. A test moves it on, as frames would. */
  readonly positions = new Map<number, number>();
  readonly name: string;
  readonly events: RingBackendEvents;
  readonly #world: BackendWorld;

  constructor(name: string, events: RingBackendEvents, world: BackendWorld) {
    this.name = name;
    this.events = events;
    this.#world = world;
  }

  #do(what: string, op: string): void {
    this.#world.log.push(`${this.name}: ${what}`);
    const trouble = this.#world.troubles.get(op)?.shift();
    if (trouble) throw trouble;
  }

  // deno-lint-ignore require-await
  async attach(): Promise<void> {
    this.#do("attach", "attach");
  }

  // deno-lint-ignore require-await
  async request(body: RequestInput, fds: readonly number[] = []): Promise<Record<string, unknown>> {
    for (const fd of fds) fileStatus(fd);
    switch (body.op) {
      case "queueStart": {
        const with_ = [body.kick && "kick", body.call && "call", body.inflight && "inflight"].filter((part) => part);
        const position = body.base === -1 ? this.#world.used.get(body.index) ?? 0 : body.base;
        const logged = body.log === undefined ? [] : [`logged at 0x${body.log.toString(16)}`];
        const told = [`start ${body.index} at ${position}`, ...with_, ...logged].join(" ");
        this.#do(told, "queueStart");
        if (this.positions.has(body.index)) throw new DeviceRefusal("queue-runs", `queue ${body.index} runs already`);
        this.positions.set(body.index, position);
        return {};
      }
      case "queueStop": {
        this.#do(`stop ${body.index}`, "queueStop");
        const base = this.positions.get(body.index);
        if (base === undefined) throw new DeviceRefusal("no-queue", `queue ${body.index} does not run`);
        this.positions.delete(body.index);
        this.#world.used.set(body.index, base);
        return { base };
      }
      case "queueCall":
        this.#do(`call ${body.index} ${body.call}`, "queueCall");
        return {};
      case "dmaSet":
        this.#do(`memory ${body.regions.map(({ iova }) => BigInt(iova) >> 32n).join(",")}`, "dmaSet");
        return {};
      case "dmaMap":
        this.#do(`add ${BigInt(body.region.iova) >> 32n}`, "dmaMap");
        return {};
      case "dmaUnmap":
        this.#do(`remove ${BigInt(body.iova) >> 32n}`, "dmaUnmap");
        return {};
      case "queueLog":
        this.#do(`log ${body.index} at ${body.log === undefined ? "none" : `0x${body.log.toString(16)}`}`, "queueLog");
        return {};
      case "logStart":
        this.#do(`log into ${body.size} bytes at ${body.offset}`, "logStart");
        return {};
      case "logStop":
        this.#do("log no more", "logStop");
        return {};
      case "logWritten":
        this.#do(`log 0x${body.iova.toString(16)}+${body.size}`, "logWritten");
        return {};
      default:
        throw new Error(`a session asks no ${body.op}`);
    }
  }

  readonly rings = undefined;

  settingsChanged(): void {}

  // deno-lint-ignore require-await
  async drain(): Promise<void> {
    this.#do("drain", "drain");
  }

  // deno-lint-ignore require-await
  async release(reason: string): Promise<void> {
    this.positions.clear();
    this.#do(`release (${reason})`, "release");
  }
}
