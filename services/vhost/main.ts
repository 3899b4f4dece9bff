/** The vhost service: vhost-user back-end of every VF. Its engine's thread starts while the rest is loaded. */
import { startEngineThread } from "../../shared/engine/engine_thread.ts";

const thread = startEngineThread();
const { serveVhost } = await import("./service.ts");
await serveVhost(thread);
