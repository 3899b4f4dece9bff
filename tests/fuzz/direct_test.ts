/** The direct paths' fuzzer, briefly; `deno task fuzz direct --seconds N` goes on longer. */
import { assert } from "@std/assert";
import { fuzzDirect } from "./direct.ts";

Deno.test("hostile guests on direct paths: nonsense stops their own queues and nothing else", () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  console.log(`seed ${seed}`);
  const { rigs, stops } = fuzzDirect(seed, 6);
  assert(rigs > 0 && stops > 0, "the fuzzer found ways to stop its own queue");
});
