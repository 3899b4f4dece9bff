/** The NIC service: tables, queues, the embedded switch. */
import { Command, InvalidArgumentError } from "commander";
import { log, parseListen, requireToken, runService, serve, urlOf } from "../../shared/api/mod.ts";
import { Reactor } from "../../shared/os/mod.ts";
import { nicApi } from "./api.ts";
import { DeviceServer } from "./device.ts";
import { Engine } from "../../shared/engine/mod.ts";
import type { NicExports } from "./exports.ts";
import { Nic } from "./nic.ts";

function cpuList(text: string): number[] {
  return text.split(",").filter((part) => part !== "").flatMap((part) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (!match) throw new InvalidArgumentError(`${text} is not a CPU list such as 0,2-3`);
    const [from, to] = [Number(match[1]), Number(match[2] ?? match[1])];
    return Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i);
  });
}

function wholeNumber(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError(`${text} is not a whole number`);
  return Number(text);
}

const options = new Command("nic")
  .description("The NIC: embedded switch, queues, device socket")
  .option("--listen <host:port>", "control API", parseListen, parseListen("127.0.0.1:8083"))
  .requiredOption("--socket <path>", "device socket to serve, for the hypervisor's own services")
  .option("--guest-socket <path>", "device socket for guests, which attach with one-time tokens")
  .option("--engine-cpus <list>", "CPUs of the engine's worker", cpuList, [])
  .option("--spin-us <n>", "poll this long without work before sleeping", wholeNumber, 100)
  .option("--grace-ms <n>", "queues go on this long after their driver service died", wholeNumber, 10_000)
  .option("--vf-memory-mib <n>", "memory one VF may map", wholeNumber, 2048)
  .option("--sealed-only", "refuse guest memory that could be truncated", false)
  .parse()
  .opts<{
    listen: ReturnType<typeof parseListen>;
    socket: string;
    guestSocket?: string;
    engineCpus: number[];
    spinUs: number;
    graceMs: number;
    vfMemoryMib: number;
    sealedOnly: boolean;
  }>();

await runService("nic", async () => {
  const token = requireToken(options.listen);
  const reactor = new Reactor();
  const engine = await Engine.start<NicExports>({ module: "nic", cpus: options.engineCpus, spinUs: options.spinUs });
  const died = Promise.withResolvers<void>();
  engine.onDeath = (reason) => died.reject(new Error(`the engine died: ${reason}`));
  const nic = new Nic(engine, {
    bytesMax: options.vfMemoryMib * 1024 ** 2,
    sealedOnly: options.sealedOnly,
    graceMs: options.graceMs,
  });
  nic.subscribe((event) => {
    if (event.type === "queue-error") log("warn", "nic", `vf ${event.pool} queue ${event.index}: ${event.reason}`);
  });
  const server = serve(nicApi(nic, token), options.listen);
  const devices = [new DeviceServer(nic, options.socket, reactor, false)];
  if (options.guestSocket) devices.push(new DeviceServer(nic, options.guestSocket, reactor, true));
  return {
    info: {
      api: urlOf(server.addr),
      socket: options.socket,
      guarded: engine.guarded,
    },
    ended: died.promise,
    async close() {
      await Promise.all(devices.map((device) => device.close()));
      await nic.close();
      await reactor.close();
      await Promise.race([server.shutdown(), new Promise((done) => setTimeout(done, 500))]);
    },
  };
});
