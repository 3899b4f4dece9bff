/** The NIC service: tables, queues, the embedded switch. */
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
  parseListen,
  runService,
  serve,
  shareSocket,
  urlOf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { Reactor } from "../../shared/os/mod.ts";
import { nicApi } from "./api.ts";
import { DeviceServer } from "./device.ts";
import { Engine } from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import { Nic } from "./nic.ts";
import { Uplinks } from "./uplinks.ts";

const options = limitCommand(accessCommand(new Command("nic")), true)
  .description("The NIC: embedded switch, queues, device socket")
  .option("--listen <host:port>", "control API", parseListen, parseListen("127.0.0.1:8083"))
  .requiredOption("--socket <path>", "device socket to serve, for the hypervisor's own services")
  .option("--guest-socket <path>", "device socket for guests, which attach with one-time tokens")
  .option("--socket-group <gid>", "group that may connect to the sockets", wholeNumber(0, 2 ** 32 - 2))
  .option("--engine-cpus <list>", "CPUs of the engine's worker", cpuList, [])
  .option("--spin-us <n>", "poll this long without work before sleeping (default: adaptive)", wholeNumber(0, 1_000_000))
  .option("--grace-ms <n>", "queues go on this long after their driver service died", wholeNumber(0, 3_600_000), 10_000)
  .parse()
  .opts<
    AccessOptions & Required<LimitOptions> & {
      socket: string;
      guestSocket?: string;
      socketGroup?: number;
      engineCpus: number[];
      spinUs?: number;
      graceMs: number;
    }
  >();

await runService("nic", async () => {
  const access = accessOf(options);
  const reactor = new Reactor();
  const engine = await Engine.start<NicExports>({ module: "engine", cpus: options.engineCpus, spinUs: options.spinUs });
  const died = Promise.withResolvers<void>();
  engine.onDeath = (reason) => died.reject(new Error(`the engine died: ${reason}`));
  const nic = new Nic(engine, {
    ...limitsOf(options),
    graceMs: options.graceMs,
  });
  nic.subscribe((event) => {
    if (event.type === "queue-error") log("warn", "nic", `vf ${event.pool} queue ${event.index}: ${event.reason}`);
  });
  const uplinks = new Uplinks({ nic, deviceSocket: options.socket, reactor });
  const server = serve(nicApi(nic, uplinks, access), options.listen);
  const devices = [new DeviceServer(nic, options.socket, reactor, false)];
  if (options.guestSocket) devices.push(new DeviceServer(nic, options.guestSocket, reactor, true));
  const { socketGroup } = options;
  if (socketGroup !== undefined) {
    shareSocket(options.socket, socketGroup);
    if (options.guestSocket) shareSocket(options.guestSocket, socketGroup);
  }
  return {
    info: {
      api: urlOf(server.addr),
      socket: options.socket,
      guarded: engine.guarded,
    },
    ended: died.promise,
    async close() {
      await uplinks.close();
      await Promise.all(devices.map((device) => device.close()));
      await nic.close();
      await reactor.close();
      await Promise.race([server.shutdown(), new Promise((done) => setTimeout(done, 500))]);
    },
  };
});
