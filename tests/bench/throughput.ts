/**
 * Frames a second through one back-end core, under the same testpmd load for every back-end: virtio-user ports on
 * CPU 1, the back-end's polling thread on CPU 0. Samples of one second, gated by core distance.
 */
import { Testpmd } from "../support/testpmd.ts";
import { until } from "../support/wait.ts";
import { type BackEnd, MACS } from "./back_ends.ts";
import { type CoreProbe, NEAR_NS, untilNear } from "./core_distance.ts";

/** What the front-end negotiates. */
export type FrontEnd = "plain" | "vector" | "packed" | "packed vector";

/** One cell of the table. */
export interface Load {
  name: string;
  frontEnd: FrontEnd;
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

const FEATURES: Record<FrontEnd, string> = {
  "plain": ",in_order=0,mrg_rxbuf=1",
  "vector": ",in_order=0,mrg_rxbuf=0,vectorized=1",
  "packed": ",packed_vq=1,in_order=0,mrg_rxbuf=1",
  "packed vector": ",packed_vq=1,in_order=1,mrg_rxbuf=0,vectorized=1",
};
const CLOSED_LOOP_BURSTS = 6;
const TRIES_PER_SAMPLE = 8;
const NEAR_WAIT_MS = 45_000;

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
  await using running = await backEnd.start();
  await using front = await startFrontEnd(load, running.sockets);
  await front.command(`set txpkts ${load.bytes}`);
  await front.command(load.loop === "closed" ? `start tx_first ${CLOSED_LOOP_BURSTS}` : "start");
  const received = async () => {
    const [a, b] = [await front.stats(0), await front.stats(1)];
    return { atMs: performance.now(), frames: a.rxPackets + b.rxPackets };
  };
  await until("frames", async () => (await received()).frames > 1000, 20_000);
  await new Promise((resolve) => setTimeout(resolve, 500));
  let distance = await untilNear(probe, NEAR_WAIT_MS);
  const samples: Sample[] = [];
  const isEnough = () => samples.filter(({ near }) => near).length >= wanted;
  for (let tries = 0; !isEnough() && tries < wanted * TRIES_PER_SAMPLE; tries++) {
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
