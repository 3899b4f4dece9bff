/**
 * Frames a second between a guest and one end of a veth: through this NIC with `xdp:` and `packet:`, and through testpmd
 * with net_vhost and net_af_xdp or net_af_packet, which forwards without looking. Everybody has the same veth in turn,
 * one CPU for all of the back-end, and the same testpmd on the other CPU as guest and as traffic source.
 */
import { TestFabric } from "../support/fabric.ts";
import { run } from "../support/judges.ts";
import { Cable } from "../support/net_namespace.ts";
import { TestProcess } from "../support/process.ts";
import { Testpmd } from "../support/testpmd.ts";
import { setUplink } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";
import { BACK_CPU, FRONT_CPU, MACS } from "./back_ends.ts";
import { type Judged, judgedTable } from "./judged.ts";
import type { PairedRowOptions } from "./options.ts";
import { median } from "./stats.ts";
import { cpuSeconds } from "./system.ts";

/** Lengths of frames without FCS, by how people call them. */
const SIZES: Record<string, number> = { "64 B": 60, "1518 B": 1514 };
const NAME = "uplinks frames";

const WAYS = ["out", "in"] as const;
type Way = typeof WAYS[number];
const SAMPLE_MS = 2000;
const SETTLE_MS = 500;
const QUEUE_SIZE = 1024;
const [GUEST_MAC, FAR_MAC] = MACS;

/** What moves frames between the guest's socket and an interface. */
interface Mover extends AsyncDisposable {
  socket: string;
  /** The process that moves them. */
  pid: number;
}

/** Each of our uplinks, and the driver of DPDK that does the same. */
const PAIRS = { "xdp:": "net_af_xdp", "packet:": "net_af_packet" } as const;
type Ours = keyof typeof PAIRS;
const OURS = Object.keys(PAIRS) as Ours[];
const partName = (size: string, what: Ours) => `${NAME} ${size} ${what}`;
/** Names of the parts, for `--only`. */
export const UPLINK_FRAMES_NAMES: readonly string[] = Object.keys(SIZES).flatMap((size) => {
  return OURS.map((what) => partName(size, what));
});

/** What one of both reached, a sample each round. */
export interface UplinkFramesResult {
  what: string;
  way: Way;
  size: string;
  framesPerS: number[];
  /** Frames that were sent to it, a second. */
  offeredPerS: number[];
  /** CPU time of the back-end for a frame that arrived. */
  cpuNsPerFrame: number[];
}

async function startOurs(what: Ours, wire: string, root?: string): Promise<Mover> {
  await using stack = new AsyncDisposableStack();
  const fabric = stack.use(await TestFabric.start(1, ["--spin-us", "0"], undefined, root));
  await fabric.patch(0, { mac: GUEST_MAC });
  await setUplink(fabric, { kind: what === "xdp:" ? "xdp" : "packet", interface: wire });
  const pid = fabric.pid("nic");
  await run("taskset", ["-a", "-c", "-p", String(BACK_CPU), String(pid)]);
  const running = stack.move();
  return { socket: fabric.vf(0).socket, pid, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

async function startTheirs(driver: string, wire: string): Promise<Mover> {
  await using stack = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-bench-" });
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const socket = `${dir}/s0`;
  const process = stack.use(
    new TestProcess(driver, "stdbuf", [
      ...["-oL", "dpdk-testpmd", "-l", `${BACK_CPU},${FRONT_CPU}`, "--main-lcore", String(FRONT_CPU), "-m", "256"],
      ...["--file-prefix", "rf-bench-back", "--no-pci", "--no-telemetry"],
      ...["--vdev", `net_vhost0,iface=${socket}`, "--vdev", `${driver}0,iface=${wire}`],
      ...["--", "-i", "--nb-cores=1", `--rxd=${QUEUE_SIZE}`, `--txd=${QUEUE_SIZE}`, "--total-num-mbufs=32768"],
      "--forward-mode=io",
    ]),
  );
  await process.expect(/testpmd> /, 30_000);
  await process.write("start\n");
  const running = stack.move();
  return { socket, pid: process.pid, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/** The guest on CPU 1: it sends what a generator makes, or takes what one puts into the far end of the cable. */
function startGuest(socket: string, way: Way, bytes: number, far: string): Promise<Testpmd> {
  const generator = `net_null0,size=${bytes}`;
  const sink = "net_null1,no-rx=1";
  return Testpmd.start({
    prefix: "rf-bench-front",
    ports: [{ socket, mac: GUEST_MAC, args: ",in_order=0,mrg_rxbuf=1" }],
    queueSize: QUEUE_SIZE,
    forward: "mac",
    ...(way === "out" ? { eal: ["--vdev", generator], extra: [`--eth-peer=0,${FAR_MAC}`] } : {
      eal: ["--vdev", `net_af_packet0,iface=${far},qdisc_bypass=1`, "--vdev", generator, "--vdev", sink],
      extra: ["--portlist=0,3,1,2", `--eth-peer=1,${GUEST_MAC}`],
    }),
  });
}

function counted(name: string, counter: string): number {
  return Number(Deno.readTextFileSync(`/sys/class/net/${name}/statistics/${counter}`));
}

/** Frames a second that came and that were offered, and the back-end's CPU time for each that came. */
async function sample(mover: Mover, way: Way, bytes: number, far: string) {
  await using guest = await startGuest(mover.socket, way, bytes, far);
  await guest.command("start");
  const read = async () => {
    const { rxPackets, txPackets } = await guest.stats(0);
    return {
      atMs: performance.now(),
      cpuS: cpuSeconds(mover.pid),
      came: way === "out" ? counted(far, "rx_packets") : rxPackets,
      offered: way === "out" ? txPackets : counted(far, "tx_packets"),
    };
  };
  const first = await read();
  await until("frames", async () => (await read()).came > first.came + 1000, 20_000);
  await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
  const before = await read();
  await new Promise((resolve) => setTimeout(resolve, SAMPLE_MS));
  const after = await read();
  const seconds = (after.atMs - before.atMs) / 1000;
  const came = after.came - before.came;
  return {
    came: came / seconds,
    offered: (after.offered - before.offered) / seconds,
    cpuNs: (after.cpuS - before.cpuS) * 1e9 / came,
  };
}

/** Each of ours, another build's if there is one, and its peer in turn, each way, at each length. Needs hugepages. */
export async function uplinkFrames(
  { rounds, wanted, report, against }: PairedRowOptions,
): Promise<UplinkFramesResult[]> {
  if (!UPLINK_FRAMES_NAMES.some(wanted)) return [];
  await using cable = await Cable.make();
  const [wire, far] = cable.ends;
  const results: UplinkFramesResult[] = [];
  const resultOf = (what: string, way: Way, size: string) => {
    const known = results.find((result) => result.what === what && result.way === way && result.size === size);
    if (known) return known;
    const result = { what, way, size, framesPerS: [], offeredPerS: [], cpuNsPerFrame: [] };
    results.push(result);
    return result as UplinkFramesResult;
  };
  for (let round = 0; round < rounds; round++) {
    for (const ours of OURS) {
      const sizes = Object.entries(SIZES).filter(([size]) => wanted(partName(size, ours)));
      if (sizes.length === 0) continue;
      const theirs = PAIRS[ours];
      const movers: [string, () => Promise<Mover>][] = [[ours, () => startOurs(ours, wire)]];
      if (against !== undefined) movers.push([otherBuild(ours), () => startOurs(ours, wire, against)]);
      movers.push([theirs, () => startTheirs(theirs, wire)]);
      for (const [what, start] of round % 2 === 0 ? movers : movers.toReversed()) {
        await using mover = await start();
        for (const [size, bytes] of sizes) {
          for (const way of WAYS) {
            const { came, offered, cpuNs } = await sample(mover, way, bytes, far);
            const result = resultOf(what, way, size);
            result.framesPerS.push(came);
            result.offeredPerS.push(offered);
            result.cpuNsPerFrame.push(cpuNs);
            const rates = `${Math.round(came)} of ${Math.round(offered)} frames/s, ${Math.round(cpuNs)} ns of CPU each`;
            report(`${partName(size, ours)} ${what}, ${way}: ${rates}`);
          }
        }
      }
    }
  }
  return results;
}

/** What another build's line is called. */
function otherBuild(what: Ours): string {
  return `${what} other build`;
}

/** Each of ours beside its peer and the other build. */
export function uplinkFramesTable(results: readonly UplinkFramesResult[]): string {
  const inMillions = (rates: number[]) => median(rates) / 1e6;
  const rows = results.flatMap((ours) => {
    if (!OURS.includes(ours.what as Ours)) return [];
    const others = [PAIRS[ours.what as Ours], otherBuild(ours.what as Ours)];
    const same = results.filter(({ way, size }) => way === ours.way && size === ours.size);
    return others.flatMap((other): Judged[] => {
      const theirs = same.find(({ what }) => what === other);
      if (!theirs) return [];
      const offered = [ours, theirs].map(({ offeredPerS }) => inMillions(offeredPerS).toFixed(2));
      const cpu = [ours, theirs].map(({ cpuNsPerFrame }) => Math.round(median(cpuNsPerFrame)));
      return [{
        ...{ what: `${ours.what} ${ours.size}, ${ours.way}`, against: other, unit: "Mpps" },
        ...{ ours: inMillions(ours.framesPerS), theirs: inMillions(theirs.framesPerS) },
        ...(other === "net_af_xdp" ? { goal: { atLeast: 1 } } : {}),
        note: `offered ${offered.join(" and ")}, CPU ns a frame ${cpu.join(" and ")}`,
      }];
    });
  });
  return judgedTable("FRAMES BETWEEN A GUEST AND A VETH", rows);
}
