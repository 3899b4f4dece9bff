/**
 * Who moves the frames between two vhost-user front-ends: this NIC, the NIC of another checkout, testpmd's net_vhost,
 * which forwards without looking, and OVS-DPDK with action NORMAL, which switches by learned addresses. Each has one
 * polling thread on CPU 0.
 */
import { TestFabric } from "../support/fabric.ts";
import { run } from "../support/judges.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";

export const BACK_CPU = 0;
export const FRONT_CPU = 1;
/** Addresses of the two front-ends. */
export const MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"] as const;

/** A back-end that runs. */
export interface RunningBackEnd extends AsyncDisposable {
  sockets: [string, string];
  /** What the engine says of itself, if it is ours. */
  engine?: () => Promise<{ framesTotal: number; busyNsTotal: number }>;
}

/** A back-end by name. */
export interface BackEnd {
  name: string;
  start(): Promise<RunningBackEnd>;
}

const OVS_VSWITCHD = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const OVS_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema";
const OVS_MEMORY_MIB = 768;

/** The NIC of the checkout at `root`; without, this one's. `args` go to `up`. */
export async function startRingfabric(root?: string, args: readonly string[] = []): Promise<RunningBackEnd> {
  const fabric = await TestFabric.start(2, ["--engine-cpus", String(BACK_CPU), ...args], undefined, root);
  await fabric.patch(0, { mac: MACS[0] });
  await fabric.patch(1, { mac: MACS[1] });
  return {
    sockets: [fabric.vf(0).socket, fabric.vf(1).socket],
    engine: async () => (await fabric.get("/api/v1/nic")).engine,
    [Symbol.asyncDispose]: () => fabric[Symbol.asyncDispose](),
  };
}

/** testpmd over two net_vhost ports, io forward. */
export async function startNetVhost(): Promise<RunningBackEnd> {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-bench-" });
  const sockets: [string, string] = [`${dir}/s0`, `${dir}/s1`];
  const process = new TestProcess("net_vhost", "stdbuf", [
    ...["-oL", "dpdk-testpmd", "-l", `${BACK_CPU},${FRONT_CPU}`, "--main-lcore", String(FRONT_CPU), "-m", "512"],
    ...["--file-prefix", "rf-bench-back", "--no-pci", "--no-telemetry"],
    ...sockets.flatMap((socket, i) => ["--vdev", `net_vhost${i},iface=${socket}`]),
    ...["--", "-i", "--nb-cores=1", "--rxd=1024", "--txd=1024", "--forward-mode=io"],
  ]);
  await process.expect(/testpmd> /, 30_000);
  await process.write("start\n");
  await until("its sockets", () => sockets.every((path) => Deno.statSync(path).isSocket));
  return {
    sockets,
    async [Symbol.asyncDispose]() {
      await process.write("quit\n").catch(() => {});
      await process.end("SIGTERM");
      await Deno.remove(dir, { recursive: true });
    },
  };
}

function isSocket(path: string): boolean {
  try {
    return Deno.statSync(path).isSocket === true;
  } catch {
    return false;
  }
}

/** OVS-DPDK with two vhost-user ports on a bridge whose only flow is NORMAL, in a network namespace of its own. */
export async function startOvs(): Promise<RunningBackEnd> {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-ovs-" });
  await using stack = new AsyncDisposableStack();
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const env = { OVS_RUNDIR: dir, OVS_LOGDIR: dir, OVS_DBDIR: dir, OVS_SYSCONFDIR: dir };
  const db = `unix:${dir}/db.sock`;
  const vsctl = (...args: string[]) => run("ovs-vsctl", [`--db=${db}`, "-t", "20", ...args]);
  await run("ovsdb-tool", ["create", `${dir}/conf.db`, OVS_SCHEMA]);
  stack.use(
    new TestProcess("ovsdb-server", "ovsdb-server", [
      ...[`${dir}/conf.db`, `--remote=p${db}`, `--unixctl=${dir}/ovsdb.ctl`],
    ], { env }),
  );
  await until("the OVS database", () => isSocket(`${dir}/db.sock`));
  const config = {
    "dpdk-init": "true",
    "dpdk-socket-mem": OVS_MEMORY_MIB,
    "dpdk-lcore-mask": `0x${(1 << FRONT_CPU).toString(16)}`,
    "pmd-cpu-mask": `0x${(1 << BACK_CPU).toString(16)}`,
    "dpdk-extra": `"--no-pci --file-prefix=rf-bench-ovs"`,
  };
  const settings = Object.entries(config).map(([key, value]) => `other_config:${key}=${value}`);
  await vsctl("--no-wait", "init", "--", "set", "Open_vSwitch", ".", ...settings);
  stack.use(
    new TestProcess("ovs-vswitchd", "unshare", ["-n", OVS_VSWITCHD, db, `--unixctl=${dir}/vs.ctl`], { env }),
  );
  await vsctl(
    ...["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev"],
    ...["--", "add-port", "br0", "vhu0", "--", "set", "interface", "vhu0", "type=dpdkvhostuser"],
    ...["--", "add-port", "br0", "vhu1", "--", "set", "interface", "vhu1", "type=dpdkvhostuser"],
  );
  const sockets: [string, string] = [`${dir}/vhu0`, `${dir}/vhu1`];
  await until("the sockets of OVS-DPDK", () => sockets.every(isSocket));
  const running = stack.move();
  return { sockets, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/** What the outside programs need that is not here: package and what it is for. */
export function missingPackages(): Map<"dpdk-dev" | "openvswitch-switch-dpdk", string> {
  const isFile = (path: string) => {
    try {
      return Deno.statSync(path).isFile;
    } catch {
      return false;
    }
  };
  const missing: ReturnType<typeof missingPackages> = new Map();
  if (!isFile("/usr/bin/dpdk-testpmd")) missing.set("dpdk-dev", "testpmd, all throughput and latency");
  if (!isFile(OVS_VSWITCHD)) missing.set("openvswitch-switch-dpdk", "OVS-DPDK as a peer");
  return missing;
}
