/** The guest service: a virtual machine in miniature. */
import { Command, InvalidArgumentError, Option } from "commander";
import { GC_GATEWAY, GC_IP, GC_LINK, GC_MASK, GC_MTU } from "../../shared/layout/guest.ts";
import {
  accessCommand,
  accessOf,
  type AccessOptions,
  cpuList,
  list,
  MacAddress,
  ownToken,
  parseListen,
  runService,
  serve,
  stopServing,
  urlOf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { readKeys } from "../../shared/plugin/mod.ts";
import { libc, Reactor } from "../../shared/os/mod.ts";
import { guestApi } from "./api.ts";
import { declined } from "./features.ts";
import { Host } from "./host.ts";
import { ipFromNumber, ipToNumber } from "./ip.ts";
import { Hypervisor } from "./hypervisor.ts";
import { Interface } from "./interface.ts";
import { Machine } from "./machine.ts";
import { Seat } from "./seat.ts";
import { Shell } from "./shell.ts";
import { VirtioPath } from "./virtio_path.ts";

function cidr(text: string): { ip: number; mask: number } {
  const match = /^(\d{1,3}(?:\.\d{1,3}){3})\/(\d{1,2})$/.exec(text);
  const bits = Number(match?.[2]);
  if (!match || bits > 30) throw new InvalidArgumentError(`${text} is not an address such as 10.0.0.1/24`);
  return { ip: ipToNumber(match[1] ?? ""), mask: bits === 0 ? 0 : (0xffffffff << (32 - bits)) >>> 0 };
}

function featureBits(text: string): number[] {
  return text.split(",").filter((part) => part !== "").map(wholeNumber(0, 63));
}

const options = accessCommand(new Command("guest"))
  .description("A virtual machine in miniature: virtio-net, plugins, IPv4, traffic tools")
  .option("--listen <host:port>", "API", parseListen, parseListen("127.0.0.1:8090"))
  .option("--api-url <url>", "where others reach that API, if it is not where it listens")
  .requiredOption("--socket <path>", "vhost-user back-end")
  .requiredOption("--ip <address/bits>", "IPv4 address", cidr)
  .option("--incoming", "no guest at first: wait for one that moves here, with its address (fabric migrate)", false)
  .option("--gateway <address>", "IPv4 gateway", ipToNumber, 0)
  .option("--port <name>", "the port it is on: a VF's number, or vport3", "0")
  .option("--hypervisor <url>", "the vf service; without it the guest stands alone")
  .option("--nic-socket <path>", "the NIC's socket for guests")
  .option("--trust <file>", "public keys of those whose plugins are taken, one in a line; may be repeated", list, [])
  .option("--mac <address>", "MAC address of a guest that stands alone", "02:00:00:00:00:01")
  .option("--mtu <bytes>", "MTU", wholeNumber(576, 9000), 1500)
  .option("--queue-pairs <n>", "queue pairs", wholeNumber(1, 16), 1)
  .option(
    "--ring-size <n>",
    "descriptors of a ring; the next power of two below, but for packed rings",
    wholeNumber(8, 1024),
    1024,
  )
  .addOption(
    new Option("--ring <format>", "virtqueues: packed where the device has them, or split")
      .choices(["packed", "split"]).default("packed"),
  )
  .option("--no-in-order", "do not ask for VIRTIO_F_IN_ORDER")
  .option("--header-bytes <n>", "advanced rings: headers in buffers of their own of this size", wholeNumber(0, 1024), 0)
  .option("--no-tx-checksum", "fill in checksums of what is sent here; so nothing is segmented either")
  .option("--no-tx-segmentation", "send no frames of several datagrams that are to be cut")
  .option("--no-rx-checksum", "take no frames without checksums; so none of several segments either")
  .option("--no-rx-large", "take no frames of several segments")
  .option("--without <bits>", "virtio feature bits not to ask for", featureBits, [])
  .option("--cpus <list>", "CPUs of the worker", cpuList, [])
  .option("--spin-us <n>", "poll this long without work before sleeping", wholeNumber(0, 1_000_000), 0)
  .parse()
  .opts<
    AccessOptions & {
      apiUrl?: string;
      socket: string;
      ip: { ip: number; mask: number };
      incoming: boolean;
      gateway: number;
      port: string;
      hypervisor?: string;
      nicSocket?: string;
      trust: string[];
      mac: string;
      mtu: number;
      queuePairs: number;
      ringSize: number;
      headerBytes: number;
      ring: "packed" | "split";
      inOrder: boolean;
      txChecksum: boolean;
      txSegmentation: boolean;
      rxChecksum: boolean;
      rxLarge: boolean;
      without: number[];
      cpus: number[];
      spinUs: number;
    }
  >();

await runService("guest", async () => {
  const access = accessOf(options);
  libc();
  const reactor = new Reactor();
  const died = Promise.withResolvers<void>();
  const machine = await Machine.start({ cpus: options.cpus, spinUs: options.spinUs });
  machine.onDeath = (reason) => died.reject(new Error(`the guest's worker died: ${reason}`));
  const host = new Host(machine);
  host.set(GC_IP, options.ip.ip);
  host.set(GC_MASK, options.ip.mask);
  host.set(GC_GATEWAY, options.gateway);
  host.set(GC_MTU, options.mtu);
  const link = new Interface(host);
  const virtio = new VirtioPath(machine, host, {
    socket: options.socket,
    reactor,
    queuePairs: options.queuePairs,
    ringSize: options.ringSize,
    declined: declined(options),
  });
  // A file that is not there is found now, not with the first plugin.
  readKeys(options.trust);
  const shell = new Shell(machine, host, virtio, {
    deviceSocket: options.nicSocket,
    reactor,
    owner: `guest (pid ${Deno.pid})`,
    trust: {
      get keys() {
        return readKeys(options.trust);
      },
    },
    ringSize: options.ringSize,
    headerBytes: options.headerBytes,
    declined: declined(options),
  });
  const seat = new Seat({ machine, host, shell, virtio, link });
  const emptied = options.incoming ? seat.wait() : undefined;
  const { queuePairs } = options;
  const server = serve(guestApi({ machine, host, shell, link, seat, queuePairs }, access), options.listen);
  const api = options.apiUrl ?? urlOf(server.addr);
  const boot = crypto.randomUUID();
  if (options.hypervisor) {
    const line = { url: options.hypervisor, port: options.port, token: ownToken() };
    const report = () => ({ api, boot, mode: shell.mode, seat: seat.state });
    const hypervisor = new Hypervisor(line, report, (config, asked) => seat.heard(config, asked));
    hypervisor.isAwaited = () => seat.state === "gone" || seat.state === "arrived";
    link.hypervisor = hypervisor;
    seat.onChange = () => hypervisor.reportNow();
    shell.onFault = () => hypervisor.reportNow();
    virtio.onConnected = () => hypervisor.reportNow();
    await hypervisor.ready;
  } else {
    host.mac = MacAddress.parse(options.mac);
    host.set(GC_LINK, 1);
  }
  const running = virtio.run();
  await emptied;
  return {
    info: { api, ip: ipFromNumber(options.ip.ip) },
    ended: died.promise,
    async close() {
      await link.hypervisor?.close();
      await shell.close();
      virtio.close();
      await running;
      await machine.close();
      await reactor.close();
      await stopServing(server);
    },
  };
});
