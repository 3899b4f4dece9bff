/** The ring fuzzer, briefly; `deno task fuzz --seconds N` goes on longer. */
import { assert } from "@std/assert";
import { fuzzRings } from "./rings.ts";

Deno.test("hostile rings: seeded nonsense reaches no byte outside its guest and stops nobody else", () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  console.log(`seed ${seed}`);
  const { rigs, stops } = fuzzRings(seed, { seconds: 8 });
  assert(rigs > 0 && stops > 0, "the fuzzer found ways to stop its own queue");
});
