/**
 * `deno task fuzz [rings|direct|protocol|modes] [--seconds N] [--descriptors N] [--guard] [--seed S]`: one of them
 * or all, for as long as one likes. `--descriptors 1e8` has the ring fuzzer go on until hostile guests have offered so many. `modes` is no
 * fuzzer: it changes modes under a checked stream.
 */
import { Argument, Command } from "commander";
import { buildWasm } from "../../shared/wasm/build.ts";

const TELL_MS = 10_000;

const command = new Command("fuzz")
  .addArgument(new Argument("[which]", "which; all if none is named").choices(["rings", "direct", "protocol", "modes"]))
  .option("--seconds <n>", "how long, for each", "60")
  .option("--descriptors <n>", "how many descriptors, for the ring fuzzer, however long that takes")
  .option(
    "--guard",
    "the ring fuzzer's process ends at any access, reading too, to what is nobody's; tells each seed before",
  )
  .option("--seed <n>", "where to begin; a failure prints the seed that repeats it", String(Date.now() % 2 ** 31))
  .parse();
const options = command.opts<{ seconds: string; descriptors?: string; seed: string; guard?: true }>();
const [which] = command.args;

/** The ring fuzzer, which says every now and then how far it is. */
async function rings(seed: number, seconds: number): Promise<void> {
  const { fuzzRings } = await import("./rings.ts");
  const { descriptors, guard } = options;
  const tellSeed = (seed: number) => console.error(`seed ${seed}`);
  let told = performance.now();
  const show = (done: ReturnType<typeof fuzzRings>) =>
    `rings: ${done.rigs} fabrics, ${done.descriptors} descriptors, ${done.stops} queues stopped or reset`;
  const done = fuzzRings(
    seed,
    descriptors === undefined ? { seconds } : { descriptors: Number(descriptors) },
    (far) => {
      if (performance.now() - told < TELL_MS) return;
      told = performance.now();
      console.log(show(far));
    },
    guard ? { isGuarded: true, onSeed: tellSeed } : {},
  );
  console.log(`${show(done)}, nothing else touched`);
}

await buildWasm();
const [seed, seconds] = [Number(options.seed), Number(options.seconds)];
console.log(`seed ${seed}`);
try {
  if (which === undefined || which === "rings") await rings(seed, seconds);
  if (which === undefined || which === "direct") {
    const { fuzzDirect } = await import("./direct.ts");
    const { rigs, stops } = fuzzDirect(seed, seconds);
    console.log(`direct: ${rigs} fabrics, ${stops} queues stopped or reset, nothing else touched`);
  }
  if (which === undefined || which === "protocol") {
    const { fuzzProtocol } = await import("./protocol.ts");
    console.log(`protocol: ${await fuzzProtocol(seed, seconds)} connections, everything else went on`);
  }
  if (which === undefined || which === "modes") {
    const { changeModes } = await import("./modes.ts");
    const { changes, frames, longestMs } = await changeModes(seconds);
    console.log(
      `modes: ${changes} changes, the longest ${
        longestMs.toFixed(0)
      } ms; ${frames} frames, none lost, twice or out of order`,
    );
  }
} catch (error) {
  console.error((error as Error).message);
  Deno.exit(1);
}
