/** The vhost service: vhost-user back-end of every VF, from its command line. */
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
  mountUpgrade,
  parseListen,
  runService,
  urlOf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { libc, Reactor } from "../../shared/os/mod.ts";
import { claim, Mirror } from "../../shared/standby/mod.ts";
import { vhostApi } from "./api.ts";
import type { EngineThread } from "../../shared/engine/mod.ts";
import { Emulation } from "./emulation.ts";
import { Ports } from "./ports.ts";
import { VhostProcess } from "./process.ts";
import { rehearse } from "./rehearsal.ts";
import { SoftwareSwitch } from "./software_switch.ts";
import { Replica, STANDBY_VERSION, type VhostMirror } from "./standby/mod.ts";

const options = limitCommand(accessCommand(new Command("vhost")), true)
  .description("vhost-user back-end: guests attach here")
  .option("--listen <host:port>", "control API", parseListen, parseListen("127.0.0.1:8081"))
  .requiredOption("--nic-socket <path>", "the NIC's device socket")
  .requiredOption("--run-dir <dir>", "where the VFs' sockets are made")
  .option("--standby-socket <path>", "where two vhost processes meet: who comes second stands by for the first")
  .option("--front-ends <dir>", "where front-ends listen that may be connected to, beside the run directory")
  .option("--socket-group <gid>", "group that may connect to the VFs' sockets", wholeNumber(0, 2 ** 32 - 2))
  .option("--engine-cpus <list>", "CPUs of the worker that carries emulated mode", cpuList, [])
  .option("--spin-us <n>", "poll this long without work before sleeping", wholeNumber(0, 1_000_000), 0)
  .parse()
  .opts<
    AccessOptions & Required<LimitOptions> & {
      nicSocket: string;
      runDir: string;
      standbySocket?: string;
      frontEnds?: string;
      socketGroup?: number;
      engineCpus: number[];
      spinUs: number;
    }
  >();

/** Serves until it is told to stop; `thread` is its engine's. */
export async function serveVhost(thread: EngineThread): Promise<never> {
  return await runService("vhost", async () => {
    const access = accessOf(options);
    libc();
    const reactor = new Reactor();
    const { nicSocket: deviceSocket, runDir, frontEnds, socketGroup, standbySocket, listen } = options;
    const { active, standbys } = claim(standbySocket, reactor);
    const emulation = await Emulation.start({
      cpus: options.engineCpus,
      spinUs: options.spinUs,
      standsBy: active !== undefined,
      thread,
      ...limitsOf(options),
    });
    const mirror: VhostMirror = new Mirror(emulation.engine.view, { service: "vhost", version: STANDBY_VERSION });
    const died = Promise.withResolvers<void>();
    emulation.engine.onDeath = (reason) => {
      // Nothing here is worth keeping: whoever stands by goes on.
      if (mirror.standby.state === "ready") Deno.exit(1);
      died.reject(new Error(`the engine of emulated mode died: ${reason}`));
    };
    if (active) await rehearse({ emulation, reactor, mirror, runDir });
    const replica = new Replica(mirror);
    const clientDirs = frontEnds === undefined ? [resolve(runDir)] : [resolve(runDir), resolve(frontEnds)];
    const ports = new Ports({ deviceSocket, runDir, clientDirs, socketGroup, reactor, emulation, replica });
    const software = new SoftwareSwitch(emulation, { deviceSocket, reactor }, replica);
    software.onLink = (id, link) => ports.setLink(`vport${id}`, link);
    software.onChange = (ids) => ports.setVports(ids);
    const api = vhostApi({ ports, software, wishes: ports.wishes, standby: () => mirror.standby }, access);
    const process = new VhostProcess({ emulation, ports, software, replica, mirror, api, reactor, listen });
    mountUpgrade(api, () => process.upgrade());
    const following = active ? (await process.standBy(active)).ended : process.drive(standbys);
    // Whoever stands by sees it die; else whoever starts it again.
    const lifeInfo = standbySocket === undefined ? { life: emulation.engine.lifePlace } : {};
    return {
      info: { api: urlOf(process.address), standsBy: active !== undefined, ...lifeInfo },
      ended: Promise.race([following, died.promise]),
      close: (isAlone) => process.close(isAlone),
    };
  });
}
