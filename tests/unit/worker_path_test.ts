/** How long a plugin may have a guest's frames without a word that it has sent any. */
import { assertThrows } from "@std/assert";
import { WorkerPath } from "../../services/guest/worker_path.ts";
import { PLUGIN_PAGES } from "../../shared/wasm/flags.ts";
import { TestHost } from "../support/guest_host.ts";
import { compilePlugin } from "../support/plugins.ts";

const SWALLOWS = { tx: "export function tx(pair: u32, count: u32): u32 { return count; }" };
const SECOND_NS = 1e9;

Deno.test("a plugin's time for a frame begins with the frame, however long the guest had nothing to send", async () => {
  const test = new TestHost("10.0.0.1", "02:00:00:00:00:01", { tx: 0, rx: 0 });
  const install = {
    module: new WebAssembly.Module(await compilePlugin(SWALLOWS)),
    memory: new WebAssembly.Memory({ initial: PLUGIN_PAGES, maximum: PLUGIN_PAGES, shared: true }),
    guard: new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }),
    ...{ kicks: [], calls: [] },
  };
  const path = new WorkerPath(install, test.wasm, test.memory.view);
  path.use(test.nowNs);
  const step = (ns: number) => {
    test.pass(ns);
    path.checkProgress(test.nowNs);
    path.move(0, true, test.nowNs);
  };
  step(4 * SECOND_NS);
  test.host.announce();
  step(0.9 * SECOND_NS);
  step(0.2 * SECOND_NS);
  step(4.7 * SECOND_NS);
  assertThrows(() => step(0.2 * SECOND_NS), Error, "it has sent none of the 1 buffers it took for 5 s");
});
