/**
 * `deno task soak [--minutes N] [--seed S]`: a fabric under checked streams, to which everything is done that may happen
 * to one, at random moments. Ends with a table, and with exit code 1 if a frame was lost that nothing explains, came
 * twice or out of order, if something did not come back, or if something leaked.
 */
import Table from "cli-table3";
import { Command } from "commander";
import { buildWasm } from "../../shared/wasm/build.ts";
import { type Report, soak } from "./soak.ts";

const command = new Command("soak")
  .option("--minutes <n>", "how long", "10")
  .option("--seed <n>", "what is done, and when; the same seed does the same", String(Date.now() % 2 ** 31))
  .option("--only <pattern>", "do only what has a name that matches, such as: ^mode|kill nic")
  .parse();
const options = command.opts<{ minutes: string; seed: string; only?: string }>();

function number(name: string, text: string, min: number): number {
  const value = Number(text);
  if (Number.isFinite(value) && value >= min) return value;
  console.error(`--${name} ${text}: say a number from ${min} on`);
  Deno.exit(1);
}

function pattern(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch (error) {
    console.error(`--only ${text}: ${(error as Error).message}`);
    Deno.exit(1);
  }
}

function print({ steps, tallies, faults }: Report): void {
  const head = ["done", "times", "a service died meanwhile", "sent", "lost", "twice", "out of order", "longest outage"];
  const table = new Table({ head, style: { head: [], border: [] } });
  for (const [name, tally] of [...tallies].sort(([a], [b]) => a < b ? -1 : 1)) {
    const { sent, lost, twice, outOfOrder } = tally;
    const outage = `${tally.outageMs.toFixed(0)} ms`;
    table.push([name, tally.steps, tally.interrupted, sent, lost, twice, outOfOrder, outage]);
  }
  console.log(table.toString());
  for (const fault of faults) console.log(`FAULT ${fault}`);
  const leaked = faults.some((fault) => fault.startsWith("leaked"));
  console.log(`${steps} steps, ${faults.length} faults${leaked ? "" : ", nothing leaked"}`);
}

const seed = number("seed", options.seed, 0);
const seconds = number("minutes", options.minutes, 0) * 60;
await buildWasm();
console.log(`seed ${seed}`);
const report = await soak({
  ...{ seed, seconds, say: (line) => console.log(line) },
  ...(options.only === undefined ? {} : { only: pattern(options.only) }),
});
print(report);
Deno.exit(report.faults.length === 0 ? 0 : 1);
