/** `fabric netdev`: a VF as an interface of the host, for as long as the command runs. */
import type { Command } from "commander";
import { fromFileUrl } from "@std/path";
import { READY_PREFIX, UplinkSpec } from "../../shared/api/mod.ts";
import { ROOT } from "../../shared/wasm/load.ts";
import { type Context, examples } from "./context.ts";
import { NotUnderstood, oneId, shown, UsageError } from "./values.ts";

/** What the service says of itself when it is ready. */
interface NetdevInfo {
  vf: number;
  name: string;
  netns?: string;
  mac?: string;
  mtu?: number;
}

interface NetdevOptions {
  netns?: string;
  address?: string;
}

/** Adds `netdev`. */
export function netdevCommands(program: Command, context: Context): void {
  examples(
    program.command("netdev <n> <name>").description("a VF as an interface of this host, until Ctrl-C; needs root")
      .option("--netns <name|pid>", "in that network namespace: a name of `ip netns`, or a process's number")
      .option("--address <a/n>", "with an address, such as 10.0.0.5/24"),
    "netdev 3 vf3 --address 10.0.0.5/24",
    "netdev 3 eth1 --netns red",
    "netdev 3 eth1 --netns $(docker inspect -f '{{.State.Pid}}' web)",
  ).action(async (n: string, name: string, options: NetdevOptions) => {
    const vf = oneId(n);
    mustBeTap("the interface's name", { name });
    if (options.address !== undefined) mustBeTap("--address", { address: options.address });
    Deno.exit(await runNetdev(context, vf, name, options));
  });
}

/** Throws if an interface cannot have a name or an address, as uplinks' TAPs have them. */
function mustBeTap(what: string, field: { name: string } | { address: string }): void {
  const spec = UplinkSpec.safeParse({ kind: "tap", name: "rf0", ...field });
  if (!spec.success) {
    throw new NotUnderstood(`${what} ${shown(Object.values(field)[0] ?? "")} ${spec.error.issues[0]?.message}`);
  }
}

/** Runs the service until it ends, or this command is to end; answers its exit code. */
async function runNetdev(context: Context, vf: number, name: string, options: NetdevOptions): Promise<number> {
  const { runDir } = context.fabric;
  if (runDir === undefined) {
    throw new UsageError("there is no run directory of this user's fabric: say where it is with --run-dir");
  }
  const child = start(runDir, vf, name, options);
  // It ends with its standard input, so also if this command is killed.
  const stop = () => void child.stdin.close().catch(() => {});
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, stop);
  const output = child.stdout.pipeThrough(new TextDecoderStream());
  let said = "";
  for await (const text of output) {
    said += text;
    const ready = said.split("\n").slice(0, -1).find((line) => line.startsWith(READY_PREFIX));
    if (ready === undefined) continue;
    said = "";
    const info = JSON.parse(ready.slice(READY_PREFIX.length)) as NetdevInfo;
    context.show(info, () => describe(info));
  }
  context.progress.stop();
  return (await child.status).code;
}

function start(runDir: string, vf: number, name: string, { netns, address }: NetdevOptions): Deno.ChildProcess {
  const root = fromFileUrl(ROOT);
  return new Deno.Command(Deno.execPath(), {
    args: [
      ...["run", "--quiet", "--no-prompt", "--allow-ffi", "--allow-env", `--allow-read=${root}`],
      ...[`${root}services/netdev/main.ts`, "--socket", `${runDir}/nic.sock`, "--vf", String(vf), "--name", name],
      ...(netns === undefined ? [] : ["--netns", netns]),
      ...(address === undefined ? [] : ["--address", address]),
    ],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
    // It asks no API.
    env: { RINGFABRIC_SUPERVISED: "1", RINGFABRIC_TOKEN: "" },
  }).spawn();
}

function describe({ vf, name, netns, mac, mtu }: NetdevInfo): string {
  const where = netns === undefined ? "" : ` of network namespace ${netns}`;
  const link = mac === undefined ? "" : ` (${mac}, MTU ${mtu})`;
  return `vf ${vf} is interface ${name}${where}${link} until Ctrl-C`;
}
