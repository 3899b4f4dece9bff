/** The NIC service: tables, queues, the embedded switch. Its engine's thread starts while the rest is loaded. */
import { startEngineThread } from "../../shared/engine/engine_thread.ts";

const thread = startEngineThread();
const { serveNic } = await import("./service.ts");
await serveNic(thread);
