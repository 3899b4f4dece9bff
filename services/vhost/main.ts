/** The vhost service: vhost-user back-end of every VF. */
import { resolve } from "@std/path";
import { Command } from "commander";
import {
  accessCommand,
  accessOf,
  type AccessOptions,
  cpuList,
  limitCommand,
  type LimitOptions,
  limitsOf,
  parseListen,
  runService,
  serve,
  urlOf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { libc, Reactor } from "../../shared/os/mod.ts";
import { vhostApi } from "./api.ts";
import { Emulation } from "./emulation.ts";
import { Ports } from "./ports.ts";
import { SoftwareSwitch } from "./software_switch.ts";

const options = limitCommand(accessCommand(new Command("vhost")), true)
  .description("vhost-user back-end: guests attach here")
  .option("--listen <host:port>", "control API", parseListen, parseListen("127.0.0.1:8081"))
  .requiredOption("--nic-socket <path>", "the NIC's device socket")
  .requiredOption("--run-dir <dir>", "where the VFs' sockets are made")
  .option("--front-ends <dir>", "where front-ends listen that may be connected to, beside the run directory")
  .option("--socket-group <gid>", "group that may connect to the VFs' sockets", wholeNumber(0, 2 ** 32 - 2))
  .option("--engine-cpus <list>", "CPUs of the worker that carries emulated mode", cpuList, [])
  .option("--spin-us <n>", "poll this long without work before sleeping", wholeNumber(0, 1_000_000), 0)
  .parse()
  .opts<
    AccessOptions & Required<LimitOptions> & {
      nicSocket: string;
      runDir: string;
      frontEnds?: string;
      socketGroup?: number;
      engineCpus: number[];
      spinUs: number;
    }
  >();

await runService("vhost", async () => {
  const access = accessOf(options);
  libc();
  const reactor = new Reactor();
  const emulation = await Emulation.start({
    cpus: options.engineCpus,
    spinUs: options.spinUs,
    ...limitsOf(options),
  });
  const died = Promise.withResolvers<void>();
  emulation.engine.onDeath = (reason) => died.reject(new Error(`the engine of emulated mode died: ${reason}`));
  const { nicSocket: deviceSocket, runDir, frontEnds, socketGroup } = options;
  const clientDirs = frontEnds === undefined ? [resolve(runDir)] : [resolve(runDir), resolve(frontEnds)];
  const ports = new Ports({ deviceSocket, runDir, clientDirs, socketGroup, reactor, emulation });
  const software = new SoftwareSwitch(emulation, { deviceSocket, reactor });
  software.onLink = (id, link) => ports.setLink(`vport${id}`, link);
  software.onChange = (ids) => ports.setVports(ids);
  const server = serve(vhostApi({ ports, software, wishes: ports.wishes }, access), options.listen);
  const following = ports.follow();
  return {
    info: { api: urlOf(server.addr) },
    ended: Promise.race([following, died.promise]),
    async close() {
      software.close();
      await ports.close();
      await following;
      await emulation.close();
      await reactor.close();
      await Promise.race([server.shutdown(), new Promise((done) => setTimeout(done, 500))]);
    },
  };
});
