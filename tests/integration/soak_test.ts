/** A short part of `deno task soak`: the same steps each time, of every kind that takes no longer than a few seconds. */
import { assert, assertEquals } from "@std/assert";
import { soak } from "../soak/soak.ts";

const SECONDS = 30;

Deno.test("a fabric to which everything happens loses nothing that a dead engine does not explain, and leaks nothing", async () => {
  const { steps, faults } = await soak({ seed: 11, seconds: SECONDS, say: (line) => console.log(line) });
  assertEquals(faults, []);
  assert(steps > 1);
});
