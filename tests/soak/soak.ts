/**
 * The soak: step after step, something drawn by lot is done to a fabric under checked streams, sometimes with a kill in
 * the middle of it. Every step ends with everything ready again, every stream flowing, and a judgement.
 */
import { Random } from "../fuzz/random.ts";
import { ask } from "../support/guests.ts";
import { type Action, ACTIONS, type Deed, INTERRUPTIONS } from "./actions.ts";
import { Cost, type Outcome } from "./cost.ts";
import { holdingsOf, leaks, leftBehind } from "./holdings.ts";
import { Streams } from "./streams.ts";
import { GUESTS, World } from "./world.ts";

const RATE = 2000;
/** In one of so many steps a service dies in the middle. */
const INTERRUPTED_ONE_IN = 4;
const INTERRUPT_MS_MAX = 200;
/** What of the fabric's log is shown when something went wrong. */
const LOG_CHARACTERS = 12_000;

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
  /** Whether processes stand by for the NIC and vhost; left out: the seed decides, with standbys in three of four. */
  standbys?: boolean;
  /** Left out: everything is done; else only what has a name that matches. */
  only?: RegExp;
  /** Hears what each step does before it is done, and what became of it. */
  say(line: string): void;
}

/** One step, with everything that was drawn by lot. */
interface Step {
  action: Action;
  deed: Deed;
  interruption?: { name: string; deed: Deed; afterMs: number };
}

function pickAction(world: World, random: Random, only = /./): Action {
  const possible = ACTIONS.filter((action) => only.test(action.name) && (action.isPossible?.(world) ?? true));
  let left = random.below(possible.reduce((sum, { weight }) => sum + weight, 0));
  const found = possible.find(({ weight }) => (left -= weight) < 0);
  if (!found) throw new Error(`nothing that can be done here has a name that matches ${only}`);
  return found;
}

function planStep(world: World, random: Random, only?: RegExp): Step {
  const action = pickAction(world, random, only);
  const deed = action.plan(world, random);
  if (!random.chance(INTERRUPTED_ONE_IN)) return { action, deed };
  const { name, plan } = random.pick(INTERRUPTIONS);
  return { action, deed, interruption: { name, deed: plan(world, random), afterMs: random.below(INTERRUPT_MS_MAX) } };
}

function textOf({ action, deed, interruption }: Step): string {
  const cut = interruption ? `; after ${interruption.afterMs} ms: ${interruption.name}` : "";
  return `${action.name}${deed.text === "" ? "" : `: ${deed.text}`}${cut}`;
}

/** Does what a step is. A deed that was interrupted may fail: whoever it asked is dead. */
async function carryOut({ deed, interruption }: Step, cost: Cost): Promise<string[]> {
  const done = deed.run(cost);
  if (!interruption) {
    return await done.then(() => [], (error) => [(error as Error).message]);
  }
  done.catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, interruption.afterMs));
  await interruption.deed.run(cost);
  await done.catch(() => {});
  return [];
}

/** A soak that goes on. */
class Soak {
  readonly #world: World;
  readonly #options: SoakOptions;
  readonly #random: Random;
  readonly #tallies = new Map<string, Tally>();
  readonly faults: string[] = [];
  #steps = 0;

  constructor(world: World, options: SoakOptions, random: Random) {
    [this.#world, this.#options, this.#random] = [world, options, random];
  }

  get report(): Report {
    return { steps: this.#steps, tallies: this.#tallies, faults: this.faults };
  }

  /** Takes step after step until the time is over, or until something does not come back. */
  async run(): Promise<void> {
    const end = performance.now() + this.#options.seconds * 1000;
    const before = await holdingsOf(this.#world);
    while (performance.now() < end) {
      const step = planStep(this.#world, this.#random, this.#options.only);
      this.#steps++;
      this.#options.say(`${this.#steps}. ${textOf(step)}`);
      const [logged, faults] = [this.#world.fabric.process.errors.length, this.faults.length];
      let hangs = false;
      try {
        await this.#take(step);
      } catch (error) {
        this.#fault(step, (error as Error).message);
        hangs = true;
      }
      if (this.faults.length > faults) await this.#explain(logged);
      if (hangs) return; // whatever comes next would blame the wrong step
    }
    for (const leak of await leaks(this.#world, before)) this.faults.push(`leaked: ${leak}`);
  }

  /** Says what the fabric has said in a step, and what its VFs have counted by now. */
  async #explain(logged: number): Promise<void> {
    const { fabric, guests } = this.#world;
    this.#options.say(fabric.process.errors.slice(logged).slice(-LOG_CHARACTERS).trimEnd());
    for (const [i, guest] of guests.entries()) {
      const counted = await guest.counted().catch((error) => (error as Error).message);
      this.#options.say(`   vf ${i} has counted ${JSON.stringify(counted)}`);
    }
    for (const [service, path] of [["vhost", "ports"], ["nic", "state"], ["pf", "nic"]] as const) {
      const { body } = await ask(`${fabric.url(service)}/api/v1/${path}`).catch((error) => ({ body: String(error) }));
      this.#options.say(`   ${service} ${path}: ${JSON.stringify(body)}`);
    }
  }

  #fault(step: Step, text: string): void {
    const fault = `step ${this.#steps} (${textOf(step)}): ${text}`;
    this.faults.push(fault);
    this.#options.say(`   FAULT ${text}`);
  }

  async #take(step: Step): Promise<void> {
    const cost = new Cost(GUESTS);
    const logged = this.#world.fabric.process.errors.length;
    await this.#world.look();
    const streams = await Streams.start(this.#world, RATE);
    for (const fault of await carryOut(step, cost)) this.#fault(step, fault);
    await this.#world.recovered();
    await streams.flow("again", cost.killed);
    const outcomes = await streams.end(cost.killed);
    const attachedAgain = this.#world.attachedAgain(logged, cost);
    for (const outcome of outcomes) {
      for (const fault of cost.faultsOf(outcome)) this.#fault(step, fault);
    }
    for (const guest of cost.unexplained(attachedAgain)) {
      this.#fault(step, `guest ${guest} had to attach again, and nothing explains it`);
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
  const random = new Random(options.seed);
  const hasStandbys = options.standbys ?? !random.chance(4);
  options.say(hasStandbys ? "with standbys" : "without standbys");
  const world = await World.start(hasStandbys);
  const run = new Soak(world, options, random);
  try {
    await run.run();
  } catch (error) {
    run.faults.push(`at rest: ${(error as Error).message}`);
    options.say(world.fabric.process.errors.slice(-LOG_CHARACTERS));
  } finally {
    await world[Symbol.asyncDispose]();
  }
  run.faults.push(...leftBehind(world.fabric.runDir));
  return run.report;
}
