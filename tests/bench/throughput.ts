/**
 * Frames a second through one back-end core, under the same testpmd load for every back-end: virtio-user ports on
 * CPU 1, the back-end's polling thread on CPU 0. Samples of one second, gated by core distance.
 */
import { TestFabric } from "../support/fabric.ts";
import { TestProcess } from "../support/process.ts";
import { Testpmd } from "../support/testpmd.ts";
import { until } from "../support/wait.ts";
import { type CoreProbe, NEAR_NS } from "./core_distance.ts";

/** What does the work. */
export type BackEnd = "ringfabric" | "net_vhost";

/** One cell of the table. */
export interface Load {
  name: string;
  frontEnd: "plain" | "vector";
  bytes: number;
  queueSize: number;
  /** Closed loop: frames in flight come back. Open loop: generators push as fast as they can. */
  loop: "closed" | "open";
}

/** What one sample showed. */
export interface Sample {
  mpps: number;
  near: boolean;
  busyNsPerFrame?: number;
}

const BACK_CPU = 0;
const FRONT_CPU = 1;
const FEATURES = {
  plain: ",in_order=0,mrg_rxbuf=1",
  vector: ",in_order=0,mrg_rxbuf=0,vectorized=1",
};
const MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"] as const;
const CLOSED_LOOP_BURSTS = 6;
const TRIES_PER_SAMPLE = 8;
const NEAR_WAIT_MS = 45_000;

interface RunningBackEnd extends AsyncDisposable {
  sockets: [string, string];
  engine?: () => Promise<{ framesTotal: number; busyNsTotal: number }>;
}

async function startRingfabric(): Promise<RunningBackEnd> {
  const fabric = await TestFabric.start(2, ["--engine-cpus", String(BACK_CPU)]);
  await fabric.patch(0, { mac: MACS[0] });
  await fabric.patch(1, { mac: MACS[1] });
  return {
    sockets: [fabric.vf(0).socket, fabric.vf(1).socket],
    engine: async () => (await fabric.get("/api/v1/nic")).engine,
    [Symbol.asyncDispose]: () => fabric[Symbol.asyncDispose](),
  };
}

async function startNetVhost(): Promise<RunningBackEnd> {
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

function startFrontEnd(load: Load, sockets: [string, string]): Promise<Testpmd> {
  const args = FEATURES[load.frontEnd];
  const open = load.loop === "open";
  return Testpmd.start({
    prefix: "rf-bench-front",
    ports: sockets.map((socket, i) => ({ socket, mac: MACS[i as 0 | 1], args })),
    queueSize: load.queueSize,
    forward: "mac",
    eal: open ? ["--vdev", `net_null0,size=${load.bytes}`, "--vdev", `net_null1,size=${load.bytes}`] : [],
    // In the open loop ports 0 and 1 are virtio, 2 and 3 generators: each virtio port is paired with a generator.
    extra: [
      "--burst=32",
      ...(open
        ? ["--portlist=0,2,1,3", `--eth-peer=0,${MACS[1]}`, `--eth-peer=1,${MACS[0]}`]
        : [`--eth-peer=0,${MACS[1]}`, `--eth-peer=1,${MACS[0]}`]),
    ],
  });
}

/** Takes `wanted` gated samples of one back-end under one load. */
export async function measure(backEnd: BackEnd, load: Load, wanted: number, probe: CoreProbe): Promise<Sample[]> {
  await using running = backEnd === "ringfabric" ? await startRingfabric() : await startNetVhost();
  await using front = await startFrontEnd(load, running.sockets);
  await front.command(`set txpkts ${load.bytes}`);
  await front.command(load.loop === "closed" ? `start tx_first ${CLOSED_LOOP_BURSTS}` : "start");
  const received = async () => {
    const [a, b] = [await front.stats(0), await front.stats(1)];
    return { atMs: performance.now(), frames: a.rxPackets + b.rxPackets };
  };
  await until("frames", async () => (await received()).frames > 1000, 20_000);
  await new Promise((resolve) => setTimeout(resolve, 500));
  const end = performance.now() + NEAR_WAIT_MS;
  let distance = await probe.measure();
  while (distance > NEAR_NS && performance.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    distance = await probe.measure();
  }
  const samples: Sample[] = [];
  for (
    let tries = 0;
    samples.filter(({ near }) => near).length < wanted && tries < wanted * TRIES_PER_SAMPLE;
    tries++
  ) {
    const engineBefore = await running.engine?.();
    const before = await received();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const after = await received();
    const engineAfter = await running.engine?.();
    const next = await probe.measure();
    const sample: Sample = {
      mpps: (after.frames - before.frames) / (after.atMs - before.atMs) / 1e3,
      near: distance < NEAR_NS && next < NEAR_NS,
    };
    if (engineBefore && engineAfter) {
      const frames = engineAfter.framesTotal - engineBefore.framesTotal;
      sample.busyNsPerFrame = (engineAfter.busyNsTotal - engineBefore.busyNsTotal) / frames;
    }
    samples.push(sample);
    distance = next;
  }
  await front.command("stop");
  return samples;
}
