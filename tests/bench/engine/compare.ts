/**
 * The engine's benchmark, whole: every row with this checkout's engine and, if one is given, with another's, in turn,
 * so that whatever slows the machine for a while slows both.
 */
import { ROOT } from "../../../shared/wasm/load.ts";
import { type Goal, isMissed } from "../judged.ts";
import { median } from "../stats.ts";
import type { Answer, Request } from "./child.ts";
import { lines } from "./lines.ts";
import type { Row } from "./row.ts";
import { ROWS } from "./rows.ts";

/** What is run. */
export interface EngineOptions {
  /** Another checkout, built. */
  against?: string;
  /** Only rows in whose names this is, and those they are held against. */
  only?: string;
  rounds: number;
}

/** A row's figures. */
export interface EngineResult {
  name: string;
  unit: Row["unit"];
  ours: number;
  /** Against the row that it is held against. */
  ratio?: number;
  goal?: Goal;
  missed: boolean;
  theirs?: number;
  theirRatio?: number;
  /** Ours in relation to theirs. */
  oursToTheirs?: number;
  goalAgainst?: Goal;
  /** Why there is no figure. */
  error?: string;
}

const BLOCK_MS = 60;
const WARM_MS = 25;
/** The first block of a process runs code that is not compiled yet. */
const FIRST_WARM_MS = 300;
const HEAVY_ROUNDS_MAX = 2;

/** A process that measures one checkout's engine. */
class Bench implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #answers: AsyncGenerator<string, void>;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #folder: string;
  #isWarm = false;

  constructor(root: URL) {
    this.#folder = root.pathname;
    this.#child = new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "--quiet", "-A", "--no-check", "--config", new URL("deno.json", root).pathname],
        ...[new URL("./child.ts", import.meta.url).pathname, root.href],
      ],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#answers = lines(this.#child.stdout);
  }

  async measure(row: Row): Promise<Answer> {
    const request: Request = { row: row.name, ms: BLOCK_MS, warmMs: this.#isWarm ? WARM_MS : FIRST_WARM_MS };
    this.#isWarm = true;
    await this.#writer.write(new TextEncoder().encode(`${JSON.stringify(request)}\n`));
    const { value } = await this.#answers.next();
    if (value === undefined) {
      throw new Error(`Cannot measure the engine of ${this.#folder}: its process ended; is that checkout built?`);
    }
    return JSON.parse(value);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#writer.close().catch(() => {});
    await this.#child.status;
  }
}

/** The rows that are wanted, and what they are held against. */
function chosenRows(only = ""): Row[] {
  const names = new Set(ROWS.filter(({ name }) => name.includes(only)).flatMap(({ name, base }) => [name, base]));
  return ROWS.filter(({ name }) => names.has(name));
}

/** The URL of a checkout's folder. */
function folderUrl(path: string): URL {
  return new URL(`file://${Deno.realPathSync(path)}/`);
}

/** Runs the rows. */
export async function engineRows({ against, only, rounds }: EngineOptions): Promise<EngineResult[]> {
  await using own = new Bench(ROOT);
  await using other = against === undefined ? undefined : new Bench(folderUrl(against));
  const benches = [own, ...(other ? [other] : [])];
  const samples = new Map<Bench, Map<string, number[]>>(benches.map((bench) => [bench, new Map()]));
  const errors = new Map<string, string>();
  const rows = chosenRows(only);
  for (let round = 0; round < rounds; round++) {
    for (const row of rows) {
      if (row.heavy && round >= HEAVY_ROUNDS_MAX) continue;
      for (const bench of round % 2 === 0 ? benches : [...benches].reverse()) {
        const { value, error } = await bench.measure(row);
        if (error !== undefined) errors.set(row.name, `${bench === own ? "" : "theirs: "}${error}`);
        const values = samples.get(bench) ?? new Map();
        if (value !== undefined) values.set(row.name, [...values.get(row.name) ?? [], value]);
      }
    }
  }
  const figure = (bench: Bench | undefined, name: string | undefined) => {
    const values = bench && name !== undefined ? samples.get(bench)?.get(name) : undefined;
    return values === undefined ? undefined : median(values);
  };
  return rows.map((row) => {
    const [ours, theirs] = [figure(own, row.name), figure(other, row.name)];
    const ratioOf = (bench: Bench | undefined) => {
      const [value, base] = [figure(bench, row.name), figure(bench, row.base)];
      return value === undefined || base === undefined ? undefined : value / base;
    };
    const [ratio, theirRatio] = [ratioOf(own), ratioOf(other)];
    const oursToTheirs = theirs === undefined || ours === undefined ? undefined : ours / theirs;
    const error = errors.get(row.name);
    return {
      ...{ name: row.name, unit: row.unit, ours: ours ?? NaN },
      ...(ratio === undefined ? {} : { ratio }),
      ...(row.goal === undefined ? {} : { goal: row.goal }),
      ...(row.goalAgainst === undefined ? {} : { goalAgainst: row.goalAgainst }),
      missed: isMissed(row.base === undefined ? ours : ratio, row.goal) || isMissed(oursToTheirs, row.goalAgainst),
      ...(theirs === undefined ? {} : { theirs }),
      ...(theirRatio === undefined ? {} : { theirRatio }),
      ...(oursToTheirs === undefined ? {} : { oursToTheirs }),
      ...(error === undefined ? {} : { error }),
    };
  });
}
