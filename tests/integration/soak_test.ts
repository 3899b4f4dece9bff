/** A short part of `deno task soak`, with standbys and without: the same steps each time, two minutes in all. */
import { assert, assertEquals } from "@std/assert";
import { soak } from "../soak/soak.ts";

const SECONDS = 60;

for (const standbys of [true, false]) {
  const how = standbys ? "with standbys" : "without standbys";
  Deno.test(`a fabric ${how} to which everything happens loses nothing that is not explained, and leaks nothing`, async () => {
    const { steps, faults } = await soak({ seed: 11, seconds: SECONDS, standbys, say: (line) => console.log(line) });
    assertEquals(faults, []);
    assert(steps > 1);
  });
}
