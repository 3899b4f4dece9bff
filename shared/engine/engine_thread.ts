/**
 * An engine's thread, and the Wasm that it is to run. A service starts both first of all, and they get ready while it loads
 * the rest: so this module needs next to nothing.
 */
import { loadWasm } from "../wasm/load.ts";

/** What an engine is started with. */
export interface EngineThread {
  worker: Worker;
  module: Promise<WebAssembly.Module>;
  /** Rejects when the thread has died of a fault. */
  failed: Promise<never>;
}

/** Starts a thread, which waits until `Engine.start` tells it what to run. */
export function startEngineThread(): EngineThread {
  const module = loadWasm("engine");
  const worker = new Worker(new URL("./engine_worker.ts", import.meta.url), { type: "module", name: "engine" });
  const failed = new Promise<never>((_, reject) => {
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      reject(new Error(event.message.replace(/^Uncaught (\w*Error: )?/, "")));
    });
  });
  // `Engine.start` rejects with the reason: Deno would end the process before that.
  for (const promise of [module, failed]) promise.catch(() => {});
  return { worker, module, failed };
}
