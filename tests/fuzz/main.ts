/** `deno task fuzz --seconds N [--seed S] [--only rings|protocol]`: both fuzzers for as long as one likes. */
import { Command } from "commander";
import { buildWasm } from "../../shared/wasm/build.ts";

const options = new Command("fuzz")
  .option("--seconds <n>", "how long, for each fuzzer", "60")
  .option("--seed <n>", "where to begin; a failure prints the seed that repeats it", String(Date.now() % 2 ** 31))
  .option("--only <which>", "rings or protocol")
  .parse().opts<{ seconds: string; seed: string; only?: string }>();

await buildWasm();
const [seed, seconds] = [Number(options.seed), Number(options.seconds)];
console.log(`seed ${seed}`);
try {
  if (options.only !== "protocol") {
    const { fuzzRings } = await import("./rings.ts");
    const { rigs, stops } = fuzzRings(seed, seconds);
    console.log(`rings: ${rigs} fabrics, ${stops} queues stopped or reset, nothing else touched`);
  }
  if (options.only !== "rings") {
    const { fuzzProtocol } = await import("./protocol.ts");
    console.log(`protocol: ${await fuzzProtocol(seed, seconds)} connections, everything else went on`);
  }
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}
