/** The guest's rings as it has them started: what it asks for, and what it makes of what it gets. */
import { assert, assertEquals } from "@std/assert";
import { GC_QUEUE_PAIRS, GUEST_RAM_BYTES_MIN } from "../../shared/layout/guest.ts";
import * as V from "../../shared/layout/virtio.ts";
import { Channel } from "../../shared/device/mod.ts";
import { createMemfd, Reactor, UnixListener } from "../../shared/os/mod.ts";
import type { CheckedImage } from "../../shared/plugin/mod.ts";
import { VHOST_USER_F_PROTOCOL_FEATURES, VhostUserConnection } from "../../shared/vhost_user/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";
import { OFFLOAD_FEATURES } from "../../shared/engine/mod.ts";
import {
  coherent,
  declined,
  featureBit,
  inUse,
  offloadNames,
  pathOffloads,
  ringSizeFor,
  type RingWishes,
  USED_OFFLOADS,
} from "../../services/guest/features.ts";
import type { Host } from "../../services/guest/host.ts";
import type { Machine } from "../../services/guest/machine.ts";
import { PathMemory, type PathOptions } from "../../services/guest/path_memory.ts";
import { VfPath } from "../../services/guest/vf_path.ts";
import { VirtioPath } from "../../services/guest/virtio_path.ts";
import { compilePlugin, RINGS } from "../support/plugins.ts";
import { until } from "../support/wait.ts";

const PACKED = featureBit(V.VIRTIO_F_RING_PACKED);
const IN_ORDER = featureBit(V.VIRTIO_F_IN_ORDER);
const OLD = [V.VIRTIO_F_VERSION_1, V.VIRTIO_NET_F_MRG_RXBUF, V.VIRTIO_RING_F_EVENT_IDX, V.VIRTIO_RING_F_INDIRECT_DESC]
  .reduce((bits, bit) => bits | featureBit(bit), 0n);
const BEST: RingWishes = {
  ...{ ring: "packed", inOrder: true, without: [], ringSize: 256 },
  ...{ txChecksum: true, txSegmentation: true, rxChecksum: true, rxLarge: true },
};
const UNUSED = OFFLOAD_FEATURES & ~USED_OFFLOADS;
const bits = (...positions: number[]) => positions.reduce((all, bit) => all | featureBit(bit), 0n);
const [CSUM, USO, GUEST_CSUM] = [V.VIRTIO_NET_F_CSUM, V.VIRTIO_NET_F_HOST_USO, V.VIRTIO_NET_F_GUEST_CSUM].map((bit) =>
  featureBit(bit)
) as [bigint, bigint, bigint];
const LARGE = USED_OFFLOADS & ~(CSUM | USO | GUEST_CSUM);

Deno.test("the guest declines what it was told not to use, and a plugin what it does not know", () => {
  const declines = (wishes: Partial<RingWishes>) => declined({ ...BEST, ...wishes }) & ~UNUSED;
  assertEquals([declines({}), declined(BEST)], [0n, UNUSED]);
  assertEquals(declines({ ring: "split" }), PACKED);
  assertEquals(declines({ inOrder: false }), IN_ORDER);
  assertEquals(declines({ ring: "split", inOrder: false, without: [15, 34] }), PACKED | IN_ORDER | featureBit(15));
  assertEquals(declines({ txChecksum: false }), CSUM);
  assertEquals(declines({ txSegmentation: false }), USO);
  assertEquals(declines({ rxChecksum: false }), GUEST_CSUM);
  assertEquals(declines({ rxLarge: false }), LARGE);
  // There is no room for 64 KiB.
  assertEquals(declines({ ringSize: 63 }), USO | LARGE);
  assertEquals(inUse(OLD | PACKED | IN_ORDER, 0n), OLD);
  assertEquals(inUse(OLD | PACKED | IN_ORDER, IN_ORDER), OLD | IN_ORDER);
  // What was not offered is not taken up, and what every plugin has is not given up.
  assertEquals(inUse(OLD | PACKED, ~0n), OLD | PACKED);
});

Deno.test("offloads are agreed on only together with what they need", () => {
  const all = OLD | USED_OFFLOADS;
  assertEquals(coherent(all), all);
  assertEquals(coherent(all & ~CSUM), all & ~(CSUM | USO));
  assertEquals(coherent(all & ~GUEST_CSUM), all & ~(GUEST_CSUM | LARGE));
  assertEquals(coherent(all & ~bits(V.VIRTIO_NET_F_MRG_RXBUF)), all & ~(bits(V.VIRTIO_NET_F_MRG_RXBUF) | LARGE));
  const names = (features: bigint) => offloadNames(pathOffloads(features));
  assertEquals(names(all), ["tx-checksum", "tx-segmentation", "rx-checksum", "rx-large"]);
  assertEquals(names(all & ~USO & ~LARGE), ["tx-checksum", "rx-checksum"]);
  assertEquals(names(OLD), []);
});

Deno.test("only packed rings have sizes that are no power of two", () => {
  assertEquals([1000, 1024, 9].map((size) => ringSizeFor(size, true)), [1000, 1024, 9]);
  assertEquals([1000, 1024, 9].map((size) => ringSizeFor(size, false)), [512, 1024, 8]);
});

/** A guest without a worker: its plugins are instantiated here. */
function machineOf(ram: ReturnType<typeof createMemfd>): Machine {
  return {
    ram,
    layOut: (path: 0 | 1, options: PathOptions) => new PathMemory(path, ram, options, undefined),
    install: async (path: PathMemory, module: WebAssembly.Module) => {
      const { memory, guard } = path.install(module);
      const imports = { env: { memory }, shell: { notify: () => {}, guard } };
      const { exports } = await WebAssembly.instantiate(module, imports);
      assertEquals((exports.start as () => number)(), 0);
    },
    remove: () => Promise.resolve(),
    endPlugin: () => {},
    whyEnded: () => undefined,
  } as unknown as Machine;
}

const HOST = {
  get: (at: number) => at === GC_QUEUE_PAIRS ? 1 : 0,
  set: () => {},
  setOffloads: () => {},
  announce: () => {},
  allowTx: () => {},
} as unknown as Host;

/** A socket, and what listens there, for one test. */
async function withSocket(kind: "stream" | "seqpacket", run: (at: UnixListener, reactor: Reactor) => Promise<void>) {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-rings-" });
  const reactor = new Reactor();
  const listener = UnixListener.listen(`${dir}/device.sock`, kind, reactor);
  try {
    await run(listener, reactor);
  } finally {
    listener.close();
    await reactor.close();
    await Deno.remove(dir, { recursive: true });
  }
}

type QueueStart = { op: string; id: number; index: number; [field: string]: unknown };

/** A NIC that says yes, and notes the queues that are started. */
async function nic(listener: UnixListener, features: bigint, started: QueueStart[]): Promise<void> {
  const socket = await listener.accept();
  if (!socket) return;
  using channel = new Channel(socket);
  for (let packet = await channel.receive(); packet; packet = await channel.receive()) {
    for (const fd of packet.fds) fd.close();
    const request = packet.message as QueueStart;
    if (request.op === "queueStart") started.push(request);
    channel.send({ id: request.id, ok: true, value: request.op === "attach" ? { features, maxQueuePairs: 1 } : {} });
  }
}

/** Drives a VF that offers `features` by a plugin; answers the queues as they were started. */
async function driveVf(features: bigint, module: WebAssembly.Module, wishes: RingWishes, ringSize: number) {
  const started: QueueStart[] = [];
  let rxWanted = 0;
  await withSocket("seqpacket", async (listener, reactor) => {
    using ram = createMemfd("guest", GUEST_RAM_BYTES_MIN);
    const serving = nic(listener, features, started);
    const info = { name: "test", version: "1.0.0", hardware: "virtio", abi: 1 };
    const path = await VfPath.open(machineOf(ram), HOST, { info, module } as unknown as CheckedImage, {
      ...{ socket: listener.path, reactor, vf: 0, token: "t", owner: "test", headerBytes: 0 },
      ...{ ringSize, declined: declined(wishes) },
    });
    rxWanted = path.rxWanted;
    await path.abandon("the test is over");
    await serving;
  });
  return { started, rxWanted };
}

const own = await loadWasm("plugin-virtio");

Deno.test("a VF's queues are started in the format that is offered, wished for and known to the plugin", async () => {
  const before = await WebAssembly.compile(await compilePlugin({ start: RINGS }));
  const both = OLD | PACKED | IN_ORDER;
  const cases: [string, bigint, WebAssembly.Module, RingWishes, string, bigint][] = [
    ["everything", both, own, BEST, "packed", both],
    ["offloads too", both | OFFLOAD_FEATURES, own, BEST, "packed", both | USED_OFFLOADS],
    ["--no-rx-checksum", both | OFFLOAD_FEATURES, own, { ...BEST, rxChecksum: false }, "packed", both | CSUM | USO],
    ["offloads, and a plugin of before", both | OFFLOAD_FEATURES, before, BEST, "split", OLD],
    ["packed only", OLD | PACKED, own, BEST, "packed", OLD | PACKED],
    ["nothing new offered", OLD, own, BEST, "split", OLD],
    ["--ring split", both, own, { ...BEST, ring: "split" }, "split", OLD | IN_ORDER],
    ["--no-in-order", both, own, { ...BEST, inOrder: false }, "packed", OLD | PACKED],
    ["a plugin that knows neither", both, before, BEST, "split", OLD],
  ];
  for (const [name, offered, module, wishes, flavour, features] of cases) {
    const { started } = await driveVf(offered, module, wishes, 64);
    assertEquals(started.map(({ index }) => index), [0, 1], name);
    for (const queue of started) {
      const base = flavour === "packed" ? V.VIRTQ_PACKED_BASE_INITIAL : 0;
      assertEquals([queue.flavour, queue.features, queue.base, queue.size], [flavour, features, base, 64], name);
      if (flavour === "packed") {
        // Ring, driver's area, device's area, in the places of a split ring's three parts.
        const [desc, avail, used] = [queue.desc, queue.avail, queue.used].map((at) => Number(at)) as [
          number,
          number,
          number,
        ];
        assert(avail >= desc + 64 * 16 && used >= avail + 4 && desc % 16 === 0 && avail % 4 === 0 && used % 4 === 0);
      }
    }
  }
});

Deno.test("a VF's rings have any size if they are packed, and the power of two below if not", async () => {
  for (const [wishes, size] of [[BEST, 1000], [{ ...BEST, ring: "split" }, 512]] as [RingWishes, number][]) {
    const { started, rxWanted } = await driveVf(OLD | PACKED, own, wishes, 1000);
    assertEquals([...started.map((queue) => queue.size), rxWanted], [size, size, size]);
  }
});

/** What a back-end that offers `features` is told: what was agreed, then numbers and bases of the vrings. */
async function backEnd(listener: UnixListener, features: bigint, told: Map<string, bigint[]>): Promise<void> {
  const socket = await listener.accept();
  if (!socket) return;
  const connection = new VhostUserConnection(socket);
  for (let message = await connection.receive(); message; message = await connection.receive()) {
    const { name, payload, fds } = message;
    for (const fd of fds) fd.close();
    if (name === "VHOST_USER_GET_FEATURES") connection.replyU64(name, features);
    else if (payload.byteLength === 8 && name === "VHOST_USER_SET_FEATURES") {
      told.set(name, [payload.getBigUint64(0, true)]);
    } else if (payload.byteLength === 8) told.set(name, [...told.get(name) ?? [], BigInt(payload.getUint32(4, true))]);
  }
}

Deno.test("a back-end is told the base that a packed ring begins with, and gets what it does not offer as split", async () => {
  const cases: [bigint, RingWishes, bigint, number, number][] = [
    [OLD | PACKED | IN_ORDER, BEST, OLD | PACKED | IN_ORDER, V.VIRTQ_PACKED_BASE_INITIAL, 1000],
    [OLD | PACKED | IN_ORDER, { ...BEST, ring: "split", inOrder: false }, OLD, 0, 512],
    [OLD | IN_ORDER, BEST, OLD | IN_ORDER, 0, 512],
    [OLD | OFFLOAD_FEATURES, BEST, OLD | USED_OFFLOADS, 0, 512],
    [OLD | OFFLOAD_FEATURES, { ...BEST, txChecksum: false }, OLD | GUEST_CSUM | LARGE, 0, 512],
  ];
  for (const [offered, wishes, agreed, base, size] of cases) {
    await withSocket("stream", async (listener, reactor) => {
      using ram = createMemfd("guest", GUEST_RAM_BYTES_MIN);
      const told = new Map<string, bigint[]>();
      const serving = backEnd(listener, offered, told);
      const path = new VirtioPath(machineOf(ram), HOST, {
        ...{ socket: listener.path, reactor, queuePairs: 1, ringSize: 1000 },
        declined: declined(wishes),
      });
      const running = path.run();
      await path.ready;
      await until("the back-end to have heard it all", () => told.get("VHOST_USER_SET_VRING_BASE")?.length === 2);
      assertEquals(told.get("VHOST_USER_SET_FEATURES"), [agreed]);
      assertEquals(told.get("VHOST_USER_SET_VRING_BASE"), [BigInt(base), BigInt(base)]);
      assertEquals(told.get("VHOST_USER_SET_VRING_NUM"), [BigInt(size), BigInt(size)]);
      assertEquals([path.features & ~featureBit(VHOST_USER_F_PROTOCOL_FEATURES), path.rxWanted], [agreed, size]);
      path.close();
      await Promise.all([running, serving]);
    });
  }
});
