/** Checked streams between built-in guests: what was sent, what came, what did not, and for how long nothing came. */
import { until } from "../support/wait.ts";
import type { Outcome } from "./cost.ts";
import type { World } from "./world.ts";

/** Who sends to whom: each guest sends or receives, and two do both. */
const PAIRS: readonly (readonly [number, number])[] = [[0, 1], [2, 3], [1, 2]];
const SIZE_BYTES = 200;
/** Frames that show that a stream flows. */
const FLOWING = 20;
const FLOWING_MS = 60_000;
/** What has not come by then, after the last one that came, does not come. */
const QUIET_MS = 2000;
const SETTLE_MS = 60_000;

/** One stream, from its first frame to its last. */
class CheckedStream {
  readonly #world: World;
  readonly from: number;
  readonly to: number;
  #id = 0;
  #flow = 0;

  constructor(world: World, from: number, to: number) {
    this.#world = world;
    this.from = from;
    this.to = to;
  }

  get name(): string {
    return `${this.from}→${this.to}`;
  }

  async start(rate: number): Promise<void> {
    const to = this.#world.guest(this.to).ip;
    const { id, flow } = await this.#world.guest(this.from).send(to, { rate, size: SIZE_BYTES });
    [this.#id, this.#flow] = [id, flow];
  }

  async #received(): Promise<number> {
    return (await this.#world.guest(this.to).flow(this.#flow))?.received ?? 0;
  }

  /** Waits until more has come. */
  async flows(when: string): Promise<void> {
    const before = await this.#received();
    await until(
      `stream ${this.name} to flow ${when}`,
      async () => await this.#received() >= before + FLOWING,
      FLOWING_MS,
    );
  }

  /** Has its sender stop, whose receiver has forgotten it. */
  async abandon(): Promise<void> {
    await this.#world.guest(this.from).stop(this.#id);
  }

  async end(): Promise<Outcome> {
    const { sent } = await this.#world.guest(this.from).stop(this.#id);
    let [last, since] = [-1, performance.now()];
    await until(`stream ${this.name} to end`, async () => {
      const received = await this.#received();
      if (received !== last) [last, since] = [received, performance.now()];
      return received >= sent || performance.now() - since > QUIET_MS;
    }, SETTLE_MS);
    const flow = await this.#world.guest(this.to).flow(this.#flow);
    const received = flow?.received ?? 0;
    return {
      ...{ name: this.name, from: this.from, to: this.to },
      ...{ sent, received, lost: sent - received, twice: flow?.duplicates ?? 0, outOfOrder: flow?.reordered ?? 0 },
      outageMs: (flow?.longestGapUs ?? 0) / 1000,
    };
  }
}

/** All streams of one step. */
export class Streams {
  readonly #streams: CheckedStream[];

  private constructor(streams: CheckedStream[]) {
    this.#streams = streams;
  }

  /** Starts them, each with so many frames a second, and waits until all flow. */
  static async start(world: World, rate: number): Promise<Streams> {
    const streams = new Streams(PAIRS.map(([from, to]) => new CheckedStream(world, from, to)));
    for (const stream of streams.#streams) await stream.start(rate);
    await streams.flow("at the beginning", new Set());
    return streams;
  }

  #without(guests: ReadonlySet<number>): CheckedStream[] {
    return this.#streams.filter(({ from, to }) => !guests.has(from) && !guests.has(to));
  }

  /** Waits until more has come of all; guests that were killed have forgotten theirs. */
  async flow(when: string, killed: ReadonlySet<number>): Promise<void> {
    await Promise.all(this.#without(killed).map((stream) => stream.flows(when)));
  }

  /** Stops all; answers what became of those whose guests were there all the time. */
  async end(killed: ReadonlySet<number>): Promise<Outcome[]> {
    const kept = this.#without(killed);
    const abandoned = this.#streams.filter((stream) => !kept.includes(stream) && !killed.has(stream.from));
    for (const stream of abandoned) await stream.abandon();
    return await Promise.all(kept.map((stream) => stream.end()));
  }
}
