/** The protocol fuzzer, briefly; `deno task fuzz --seconds N` goes on longer. */
import { assert } from "@std/assert";
import { fuzzProtocol } from "./protocol.ts";

Deno.test("hostile vhost-user messages: the services live, leak nothing, and honest guests keep talking", async () => {
  const seed = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  console.log(`seed ${seed}`);
  assert((await fuzzProtocol(seed, 10)) > 10);
});
