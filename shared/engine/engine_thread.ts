/**
 * An engine's thread, and the Wasm that it is to run. A service starts both first of all, and they get ready while it loads
 * the rest: so this module needs next to nothing.
 */
import { loadWasm } from "../wasm/load.ts";

/** What an engine is started with. */
export interface EngineThread {
  worker: Worker;
  module: Promise<WebAssembly.Module>;
}

/** Starts a thread, which waits until `Engine.start` tells it what to run. */
export function startEngineThread(): EngineThread {
  const module = loadWasm("engine");
  // `Engine.start` rejects with the reason: Deno would end the process before that.
  module.catch(() => {});
  return {
    worker: new Worker(new URL("./engine_worker.ts", import.meta.url), { type: "module", name: "engine" }),
    module,
  };
}
