/** The engine's benchmark alone: `deno run -A tests/bench/engine/main.ts [--against DIR] [--only TEXT] [--rounds N]`. */
import { Command } from "commander";
import { engineRows } from "./compare.ts";
import { engineTable } from "./view.ts";

const options = new Command("engine")
  .option("--against <dir>", "another checkout, built: its engine is measured in turn with this one's")
  .option("--only <text>", "only rows in whose names this is")
  .option("--rounds <n>", "how often the engines take turns", "5")
  .parse().opts<{ against?: string; only?: string; rounds: string }>();

const results = await engineRows({ ...options, rounds: Number(options.rounds) });
console.log(engineTable(results));
for (const { name, error } of results) if (error !== undefined) console.error(`${name}: ${error}`);
