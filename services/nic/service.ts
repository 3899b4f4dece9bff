/** The NIC service: tables, queues, the embedded switch, from its command line. */
import { Command } from "commander";
import {
  accessCommand,
  accessOf,
  type AccessOptions,
  cpuList,
  limitCommand,
  type LimitOptions,
  limitsOf,
  log,
  mountUpgrade,
  parseListen,
  runService,
  shareSocket,
  tell,
  urlOf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { Reactor } from "../../shared/os/mod.ts";
import { claim } from "../../shared/standby/mod.ts";
import { nicApi } from "./api.ts";
import { Engine, type EngineThread } from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import { Nic } from "./nic.ts";
import { NicProcess } from "./process.ts";
import { Uplinks } from "./uplinks.ts";

const options = limitCommand(accessCommand(new Command("nic")), true)
  .description("The NIC: embedded switch, queues, device socket")
  .option("--listen <host:port>", "control API", parseListen, parseListen("127.0.0.1:8083"))
  .requiredOption("--socket <path>", "device socket to serve, for the hypervisor's own services")
  .option("--guest-socket <path>", "device socket for guests, which attach with one-time tokens")
  .option("--standby-socket <path>", "where two processes of the NIC meet: who comes second stands by for the first")
  .option("--socket-group <gid>", "group that may connect to the sockets", wholeNumber(0, 2 ** 32 - 2))
  .option("--engine-cpus <list>", "CPUs of the engine's worker", cpuList, [])
  .option(
    "--spin-us <n>",
    "poll this long without work before sleeping (default: adaptive)",
    wholeNumber(0, 1_000_000),
  )
  .option(
    "--grace-ms <n>",
    "queues go on this long after their driver service died",
    wholeNumber(0, 3_600_000),
    10_000,
  )
  .parse()
  .opts<
    AccessOptions & Required<LimitOptions> & {
      socket: string;
      guestSocket?: string;
      standbySocket?: string;
      socketGroup?: number;
      engineCpus: number[];
      spinUs?: number;
      graceMs: number;
    }
  >();

/** Serves until it is told to stop; `thread` is its engine's. */
export async function serveNic(thread: EngineThread): Promise<never> {
  return await runService("nic", async () => {
    const access = accessOf(options);
    const reactor = new Reactor();
    const { active, standbys } = claim(options.standbySocket, reactor);
    const { engineCpus: cpus, spinUs, socket, guestSocket, standbySocket, socketGroup, listen } = options;
    const engine = await Engine.start<NicExports>({
      cpus,
      spinUs,
      standsBy: active !== undefined,
      thread,
    });
    const nic = new Nic(engine, { ...limitsOf(options), graceMs: options.graceMs });
    const died = Promise.withResolvers<void>();
    engine.onDeath = (reason) => {
      tell("error", `nic: the engine died: ${reason}`);
      // Nothing here is worth keeping: whoever stands by goes on.
      if (nic.standby.state === "ready") Deno.exit(1);
      died.reject(new Error("the engine died"));
    };
    nic.subscribe((event) => {
      if (event.type === "queue-error") log("warn", "nic", `vf ${event.pool} queue ${event.index}: ${event.reason}`);
    });
    const uplinks = new Uplinks({ nic, deviceSocket: socket, reactor });
    const api = nicApi(nic, uplinks, access);
    const process = new NicProcess({ nic, uplinks, api, reactor, listen, socket, guestSocket, standbySocket });
    mountUpgrade(api, () => process.upgrade());
    let following: Promise<void> | undefined;
    if (active) ({ ended: following } = await process.standBy(active));
    else process.drive(standbys);
    if (socketGroup !== undefined && !active) {
      shareSocket(socket, socketGroup);
      if (guestSocket) shareSocket(guestSocket, socketGroup);
    }
    // Whoever stands by sees it die; else whoever starts it again.
    const lifeInfo = standbySocket === undefined ? { life: engine.lifePlace } : {};
    return {
      info: {
        api: urlOf(process.address),
        socket,
        guarded: engine.guarded,
        standsBy: active !== undefined,
        ...lifeInfo,
      },
      ended: Promise.race([died.promise, ...(following ? [following] : [])]),
      close: (isAlone) => process.close(isAlone),
    };
  });
}
