/** The PF service: control plane and front door. */
import { Command } from "commander";
import {
  accessCommand,
  accessOf,
  type AccessOptions,
  type ModeEvent,
  ownToken,
  parseListen,
  Restarts,
  runService,
  serve,
  stopServing,
  urlOf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { pfApi } from "./api.ts";
import { Fabric } from "./fabric.ts";
import { NicLink, SwitchLink } from "./links.ts";
import { Link } from "./link.ts";
import { ModeLink } from "./mode_link.ts";
import { Store } from "./store.ts";

const options = accessCommand(new Command("pf"))
  .description("The PF: policy of every VF, over HTTP")
  .option("--listen <host:port>", "API", parseListen, parseListen("127.0.0.1:8080"))
  .option("--nic <url>", "the NIC's control API", "http://127.0.0.1:8083")
  .option("--vhost <url>", "the vhost service's API", "http://127.0.0.1:8081")
  .option("--vf <url>", "the VF plugin service's API", "http://127.0.0.1:8082")
  .requiredOption("--db <path>", "where settings are kept")
  .requiredOption("--run-dir <dir>", "where the VFs' sockets are")
  .option("--vfs <n>", "VFs of a new fabric", wholeNumber(0, 256), 4)
  .option("--mac-seed <text>", "what a new fabric's addresses are derived from", crypto.randomUUID())
  .parse()
  .opts<
    AccessOptions & {
      nic: string;
      vhost: string;
      vf: string;
      db: string;
      runDir: string;
      vfs: number;
      macSeed: string;
    }
  >();

/** How long a PF that starts waits for the NIC, and how often it looks. */
const NIC_MS_MAX = 1000;
const LOOK_MS = 5;

await runService("pf", async () => {
  const access = accessOf(options);
  const store = new Store(options.db, options.macSeed, options.vfs);
  const token = ownToken();
  const self = new Restarts("pf");
  const links = {
    self,
    nic: new NicLink(options.nic, token),
    software: new SwitchLink(options.vhost, token),
    modes: new ModeLink(options.vf, token),
    modeEvents: new Link<ModeEvent>("the vf service", options.vf, token),
  };
  const fabric = new Fabric(store, links, { runDir: options.runDir });
  // Whoever asks for the link hears what is so: before the NIC has told of the uplink there seems to be none.
  const end = performance.now() + NIC_MS_MAX;
  while (fabric.unreadiness !== undefined && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
  const server = serve(pfApi(fabric, access), options.listen);
  return {
    info: { api: urlOf(server.addr) },
    ended: self.ended,
    async close() {
      // What is being answered still has its settings.
      await stopServing(server);
      await fabric.close();
      store[Symbol.dispose]();
    },
  };
});
