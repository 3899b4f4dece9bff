/**
 * Measures rows of the engine's benchmark with the engine of one checkout, given as a URL: one request a line on
 * standard input, one answer a line. A process for each checkout, because an engine's memory takes up 4 GiB of
 * addresses, and because each checkout has its own import map.
 */
import { lines } from "./lines.ts";
import type { Time } from "./measure.ts";
import { ROWS } from "./rows.ts";
import { loadKit } from "./world.ts";

/** What is asked. */
export interface Request extends Time {
  row: string;
}

/** What is answered. A row that this checkout cannot do has neither. */
export interface Answer {
  value?: number;
  error?: string;
}

const kit = await loadKit(new URL(Deno.args[0] ?? ""));

function answer({ row: name, ms, warmMs }: Request): Answer {
  const row = ROWS.find((row) => row.name === name);
  if (!row) return { error: `there is no row ${name}` };
  if (!(row.needs ?? []).every((format) => kit.has(format))) return {};
  try {
    return { value: row.run(kit, { ms, warmMs }) };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

for await (const line of lines(Deno.stdin.readable)) console.log(JSON.stringify(answer(JSON.parse(line))));
