/** `deno task up`: the whole fabric on one machine; it prints how to attach, and goes down again on Ctrl-C. */
import { resolve } from "@std/path";
import { Command, InvalidArgumentError } from "commander";
import {
  defaultRunDir,
  formatUplinkSpec,
  isLoopback,
  limitCommand,
  list,
  once,
  oneLine,
  parseListen,
  parseUplinkSpec,
  path,
  qemuArguments,
  say,
  UplinkSpec,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { fabricCommand, tokenHint } from "./hints.ts";
import type { Options } from "./options.ts";
import { type ReadyFabric, Supervisor } from "./supervisor.ts";

function print({ api, vfs, guests, uplink, token, tookMs }: ReadyFabric, options: Options): void {
  if (options.json) {
    const list = vfs.map(({ id, mac, socket }) => ({ id, mac, socket }));
    say(JSON.stringify({ api, vfs: list, guests }));
    return;
  }
  say(`ringfabric is up (${(tookMs / 1000).toFixed(1)} s)\n`);
  const key = token ? `#token=${token}` : "";
  say(`  page       ${api}/${key}`);
  say(`  API        ${api}/api/v1/vfs, described at ${api}/docs${key}`);
  say(`  metrics    ${api}/metrics\n`);
  if (uplink.spec.kind !== "none") {
    const reason = uplink.reason === undefined ? "" : `: ${uplink.reason}`;
    say(`  uplink     ${formatUplinkSpec(uplink.spec)}, ${uplink.state}${reason}\n`);
  }
  if (token) say(`  ${tokenHint(options.runDir)}\n`);
  for (const { api, ip, port } of guests) {
    say(`  guest on ${port.replace(/^(\d)/, "VF $1").padEnd(9)} ${ip.padEnd(11)} ${api}`);
  }
  if (guests.length > 0) say("");
  for (const vf of vfs.slice(Math.min(guests.length, vfs.length))) {
    say(`  VF ${vf.id}  ${vf.mac}  ${vf.socket}`);
    say(`    qemu-system-x86_64 ${shellLines(qemuArguments(vf))}\n`);
  }
  say(`With KVM: ${fabricCommand(options.runDir)} qemu N --kvm.  DPDK: … testpmd N.  Stop: Ctrl-C.`);
}

/** Arguments in lines of a flag and its value each, to be pasted into a shell. */
function shellLines(args: string[]): string {
  const lines: string[] = [];
  for (let i = 0; i < args.length; i += 2) lines.push(args.slice(i, i + 2).join(" "));
  return lines.join(" \\\n      ");
}

/** Addresses such as `127.0.0.1:9000,[::1]:9001`, checked. */
function addressList(text: string, before: string[]): string[] {
  const addresses = text.split(",").map((part) => part.trim()).filter((part) => part !== "");
  for (const address of addresses) {
    try {
      parseListen(address);
    } catch {
      throw new InvalidArgumentError(`${address} is not HOST:PORT.`);
    }
  }
  return [...before, ...addresses];
}

/** An address to listen on, without a port: `--port` says that. */
function hostAddress(text: string): string {
  const host = text.replace(/^\[(.*)\]$/, "$1");
  if (!/^[\w.:%-]+$/.test(host) || /^[^:]*:\d+$/.test(host)) {
    throw new InvalidArgumentError("It is an address such as 127.0.0.1 or ::1; --port says the port.");
  }
  return host;
}

/** The options as they are typed. */
type SaidOptions = Omit<Options, "uplink"> & { uplink?: string; uplinkAddress?: string };

/** The uplink that was asked for. Throws, with what would do, if it is none. */
function readUplink(text: string | undefined, address: string | undefined): Pick<Options, "uplink"> {
  if (text === undefined) {
    if (address !== undefined) throw new Error("--uplink-address is for --uplink tap:NAME: say both");
    return {};
  }
  const spec = parseUplinkSpec(/^pcap:./.test(text) ? `pcap:${resolve(text.slice("pcap:".length))}` : text);
  if (address === undefined) return { uplink: spec };
  if (spec.kind !== "tap") throw new Error(`--uplink-address is for a TAP: --uplink ${text} keeps what it has`);
  const whole = UplinkSpec.safeParse({ ...spec, address });
  if (whole.success) return { uplink: whole.data };
  throw new Error(`--uplink-address ${address} ${whole.error.issues[0]?.message}`);
}

const command = limitCommand(new Command("up"), false)
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "up: ")) })
  .description("Starts the fabric: nic, pf, vhost, vf, and guests, until Ctrl-C")
  .option("--vfs <n>", "number of VFs (kept; 4 at first)", wholeNumber(0, 256))
  .option("--guests <n>", "built-in guests, on VFs as far as there are, on vports otherwise", wholeNumber(0, 64), 0)
  .option(
    "--guest-args <text>",
    'further arguments of built-in guests, such as "--mtu 9000 --queue-pairs 2"; if repeated, of the first guest, the ' +
      "second, …, and of all that are left",
    list,
    [],
  )
  .option("--trust <file>", "public keys of further plugin vendors, one in a line; may be repeated", list, [])
  .option(
    "--shells <list>",
    "where guests with a shell of your own listen, such as 127.0.0.1:9000; may be repeated",
    addressList,
    [],
  )
  .option("--uplink <spec>", "tap:NAME, packet:IFACE, xdp:IFACE, pcap:FILE or none (kept; none at first)", once)
  .option("--uplink-address <address>", "with --uplink tap:NAME: the host's address there, such as 10.0.0.254/16", once)
  .option("--front-ends <dir>", "where front-ends listen that wait for their back-end, beside the run directory", path)
  .option("--socket-group <name>", "group whose members may attach guests, such as libvirt-qemu; else this user alone")
  .option(
    "--port <p>",
    "port of the PF's API; the other services take the next three, guests those from +10 on",
    wholeNumber(1, 65535),
    8080,
  )
  .option("--host <address>", "address to listen on", hostAddress, "127.0.0.1")
  .option("--run-dir <dir>", "sockets and settings", path, defaultRunDir())
  .option("--engine-cpus <list>", "CPUs of the engine, such as 2 or 2-3")
  .option(
    "--spin-us <n>",
    "µs that the engines poll without work before they sleep (default: the NIC adapts; 0 with more guests than CPUs)",
    wholeNumber(0, 1_000_000),
  )
  .option(
    "--no-standby",
    "no second process that takes over when the one of the NIC or of vhost dies: guests wait for a new one instead",
  )
  .option("--no-token", "let everybody in who reaches an API: every user and web page of this machine")
  .option("--json", "one line of JSON when ready, for programs", false)
  .parse();

try {
  const { uplinkAddress, uplink, ...said } = command.opts<SaidOptions>();
  const options: Options = { ...said, ...readUplink(uplink, uplinkAddress) };
  if (!options.token && !isLoopback(options.host)) {
    throw new Error(`--no-token is for this machine alone: leave it out, or --host ${options.host}`);
  }
  await new Supervisor(options).run((fabric) => print(fabric, options));
  Deno.exit(0);
} catch (error) {
  console.error(`up: ${oneLine(error).replace(/^up: /, "")}`);
  Deno.exit(1);
}
