/**
 * The soak: step after step, something drawn by lot is done to a fabric under checked streams, sometimes with a kill in
 * the middle of it. Every step ends with everything ready again, every stream flowing, and a judgement.
 */
import { Random } from "../fuzz/random.ts";
import { type Action, ACTIONS, type Cost, type Deed, INTERRUPTIONS } from "./actions.ts";
import { holdingsOf, leaks, leftBehind } from "./holdings.ts";
import { type Outcome, Streams } from "./streams.ts";
import { World } from "./world.ts";

const RATE = 2000;
/** In one of so many steps a service dies in the middle. */
const INTERRUPTED_ONE_IN = 4;
const INTERRUPT_MS_MAX = 200;

/** What became of all steps of one kind. */
export interface Tally {
  steps: number;
  interrupted: number;
  sent: number;
  lost: number;
  twice: number;
  outOfOrder: number;
  /** The longest outage of any stream, in milliseconds. */
  outageMs: number;
}

/** What a soak has seen. */
export interface Report {
  steps: number;
  tallies: ReadonlyMap<string, Tally>;
  /** What must not be: each with the step that it was seen in. */
  faults: readonly string[];
}

/** How long it goes on, and whom it tells. */
export interface SoakOptions {
  seed: number;
  seconds: number;
  /** Hears what each step does before it is done, and what became of it. */
  say(line: string): void;
}

/** One step, with everything that was drawn by lot. */
interface Step {
  action: Action;
  deed: Deed;
  interruption?: { deed: Deed; afterMs: number };
  cost: Cost;
}

function pickAction(random: Random): Action {
  const possible = ACTIONS.filter((action) => action.isPossible?.() ?? true);
  let left = random.below(possible.reduce((sum, { weight }) => sum + weight, 0));
  const found = possible.find(({ weight }) => (left -= weight) < 0);
  if (!found) throw new Error("the weights of the actions do not add up");
  return found;
}

function planStep(world: World, random: Random): Step {
  const action = pickAction(random);
  const deed = action.plan(world, random);
  if (!random.chance(INTERRUPTED_ONE_IN)) return { action, deed, cost: deed.cost };
  const interruption = {
    deed: random.pick(INTERRUPTIONS).plan(world, random),
    afterMs: random.below(INTERRUPT_MS_MAX),
  };
  const both = interruption.deed.cost;
  const cost = { loses: deed.cost.loses || both.loses, kills: [...deed.cost.kills, ...both.kills] };
  return { action, deed, interruption, cost };
}

function textOf({ action, deed, interruption }: Step): string {
  const cut = interruption ? `; after ${interruption.afterMs} ms ${interruption.deed.text} is killed` : "";
  return `${action.name}${deed.text === "" ? "" : `: ${deed.text}`}${cut}`;
}

/** Does what a step is. A deed that was interrupted may fail: whoever it asked is dead. */
async function carryOut({ deed, interruption }: Step): Promise<string[]> {
  const done = deed.run();
  if (!interruption) {
    return await done.then(() => [], (error) => [(error as Error).message]);
  }
  done.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, interruption.afterMs));
  await interruption.deed.run();
  await done.catch(() => {});
  return [];
}

function judge({ name, sent, lost, twice, outOfOrder }: Outcome, cost: Cost): string[] {
  const faults: string[] = [];
  if (twice > 0) faults.push(`stream ${name}: ${twice} of ${sent} frames came twice`);
  if (outOfOrder > 0) faults.push(`stream ${name}: ${outOfOrder} of ${sent} frames came out of order`);
  if (lost !== 0 && !cost.loses) {
    faults.push(`stream ${name}: ${lost} of ${sent} frames were lost, and nothing explains it`);
  }
  return faults;
}

/** A soak that goes on. */
class Soak {
  readonly #world: World;
  readonly #options: SoakOptions;
  readonly #random: Random;
  readonly #tallies = new Map<string, Tally>();
  readonly faults: string[] = [];
  #steps = 0;

  constructor(world: World, options: SoakOptions) {
    this.#world = world;
    this.#options = options;
    this.#random = new Random(options.seed);
  }

  get report(): Report {
    return { steps: this.#steps, tallies: this.#tallies, faults: this.faults };
  }

  /** Takes step after step until the time is over, or until something does not come back. */
  async run(): Promise<void> {
    const end = performance.now() + this.#options.seconds * 1000;
    const before = await holdingsOf(this.#world);
    while (performance.now() < end) {
      const step = planStep(this.#world, this.#random);
      this.#steps++;
      this.#options.say(`${this.#steps}. ${textOf(step)}`);
      try {
        await this.#take(step);
      } catch (error) {
        this.#fault(step, (error as Error).message);
        return; // whatever comes next would blame the wrong step
      }
    }
    for (const leak of await leaks(this.#world, before)) this.faults.push(`leaked: ${leak}`);
  }

  #fault(step: Step, text: string): void {
    const fault = `step ${this.#steps} (${textOf(step)}): ${text}`;
    this.faults.push(fault);
    this.#options.say(`   FAULT ${text}`);
  }

  async #take(step: Step): Promise<void> {
    const streams = await Streams.start(this.#world, RATE);
    for (const fault of await carryOut(step)) this.#fault(step, fault);
    await this.#world.recovered();
    await streams.flow("again", step.cost.kills);
    const outcomes = await streams.end(step.cost.kills);
    for (const outcome of outcomes) {
      for (const fault of judge(outcome, step.cost)) this.#fault(step, fault);
    }
    this.#count(step, outcomes);
  }

  #count({ action, interruption }: Step, outcomes: readonly Outcome[]): void {
    const none = { steps: 0, interrupted: 0, sent: 0, lost: 0, twice: 0, outOfOrder: 0, outageMs: 0 };
    const tally = this.#tallies.get(action.name) ?? none;
    tally.steps++;
    if (interruption) tally.interrupted++;
    for (const { sent, lost, twice, outOfOrder, outageMs } of outcomes) {
      tally.sent += sent;
      tally.lost += lost;
      tally.twice += twice;
      tally.outOfOrder += outOfOrder;
      tally.outageMs = Math.max(tally.outageMs, outageMs);
    }
    this.#tallies.set(action.name, tally);
  }
}

/** Soaks a fabric of its own; answers what was seen. Throws only if none can be started. */
export async function soak(options: SoakOptions): Promise<Report> {
  const world = await World.start();
  const run = new Soak(world, options);
  try {
    await run.run();
  } catch (error) {
    run.faults.push(`at rest: ${(error as Error).message}`);
  } finally {
    if (run.faults.length > 0) options.say(world.fabric.process.errors.slice(-LOG_CHARACTERS));
    await world[Symbol.asyncDispose]();
  }
  run.faults.push(...leftBehind(world.fabric.runDir));
  return run.report;
}
/** What of the fabric's log is shown when something went wrong. */
const LOG_CHARACTERS = 6000;
