/**
 * The rows of the engine's benchmark: the kinds of traffic that people have, each in relation to the kind that an
 * engine is best at, one flow between two virtqueues. Warm caches, 64 B unless the name says otherwise.
 */
import { checksumRows } from "./checksums.ts";
import { captured } from "./capture.ts";
import { besideHostile } from "./hostile.ts";
import { measure } from "./measure.ts";
import { patchPause } from "./patch.ts";
import type { Row } from "./row.ts";
import { type Format, type Kit, LARGE, QUEUE, type Seat, SMALL, World } from "./world.ts";

const ONE_FLOW = "one flow";
const FOREIGN = "02:99:99:99:99:99";
const GUEST_HALF_BYTES = 2 * 1024 ** 2;
const VLAN = 100;
/** A twentieth is noise. */
const NO_SLOWER = { atMost: 1.05 };
const LARGE_SEAT: Seat = { queueSize: LARGE.slots, buffers: LARGE };

/** Rows that drain full rings differ only in their load. */
function drained(name: string, atMost: number | undefined, build: (kit: Kit) => World, more: Partial<Row> = {}): Row {
  const base = name === ONE_FLOW ? {} : { base: ONE_FLOW };
  return {
    ...{ name, unit: "ns/frame", run: (kit, time) => measure(build(kit), true, time).nsPerFrame },
    ...base,
    ...(atMost === undefined ? {} : { goal: { atMost } }),
    ...more,
  };
}

/** VF 0 sends to VF 1. */
function pair(kit: Kit, policy: Parameters<typeof Object.assign>[0] = {}, vid?: number): World {
  const world = new World(kit, 2, { 0: policy, 1: policy });
  world.sender(0, world.frames(world.mac(0), [world.mac(1)], 64, vid));
  world.receiver(1);
  return world;
}

/** VF 0 sends to so many VFs in turn. Their rings are small, so that the row's buffers stay in the cache. */
function fanOut(kit: Kit, destinations: number): World {
  const world = new World(kit, destinations + 1);
  const dsts = Array.from({ length: destinations }, (_, i) => world.mac(i + 1));
  world.sender(0, world.frames(world.mac(0), dsts));
  const queueSize = Math.max(64, QUEUE / destinations);
  for (let vf = 1; vf <= destinations; vf++) world.receiver(vf, { queueSize, buffers: { ...SMALL, slots: queueSize } });
  return world;
}

/** Frames between guests with these ring formats. */
function mixed(from: Format, to: Format): Row {
  return drained(`${from} to ${to}`, 1.5, (kit) => {
    const world = new World(kit, 2);
    world.sender(0, world.frames(world.mac(0), [world.mac(1)]), { format: from });
    // An advanced ring keeps one descriptor back, so it needs more of them for as many frames.
    world.receiver(1, { format: to, queueSize: to === "advanced" ? 2 * QUEUE : QUEUE });
    return world;
  }, { needs: [from, to] });
}

/** Guests whose memory has two regions, with every other buffer in the second. */
function twoRegions(kit: Kit): World {
  const world = new World(kit, 2);
  const seat = { buffers: { ...SMALL, alternateBytes: GUEST_HALF_BYTES } };
  world.sender(0, world.frames(world.mac(0), [world.mac(1)]), seat);
  world.receiver(1, seat);
  for (const [pool, { options: { iova, offset } }] of world.rig.guests) {
    world.rig.setRegions(pool, [
      { iova, size: GUEST_HALF_BYTES, window: offset },
      { iova: iova + BigInt(GUEST_HALF_BYTES), size: GUEST_HALF_BYTES, window: offset + GUEST_HALF_BYTES },
    ]);
  }
  return world;
}

/** An uplink and a VF, one of which sends. */
function uplink(kit: Kit, fromUplink: boolean): World {
  const world = new World(kit, 1);
  const pool = kit.constant("POOL_UPLINK");
  const [from, to] = fromUplink ? [pool, 0] : [0, pool];
  world.sender(from, fromUplink ? world.frames(FOREIGN, [world.mac(0)]) : world.frames(world.mac(0), [FOREIGN]));
  // An eighth of the uplink's ring is kept for copies: with one as long as the sender's, some of its frames would wait.
  world.receiver(to, fromUplink ? {} : { queueSize: 2 * QUEUE });
  return world;
}

/** A sender with 16 queues beside one with a single queue, each with as many frames waiting as it may send. */
function manyQueues(bytes: number): Row {
  return {
    name: `16 queues against one, ${bytes} B: frames each got`,
    unit: "times",
    goal: { atMost: 1.1, atLeast: 0.9 },
    run(kit, time) {
      const world = new World(kit, 4);
      // Buffers are used by many descriptors: what counts is frames, not caches.
      const buffers = { strideBytes: bytes + 192, slots: 16 };
      const seat = { buffers, flags: kit.constant("QUEUE_F_INDIRECT") | kit.constant("QUEUE_F_MRG_RXBUF") };
      world.sender(0, world.frames(world.mac(0), [world.mac(2)], bytes), { ...seat, queueSize: 256, queuePairs: 16 });
      world.sender(1, world.frames(world.mac(1), [world.mac(3)], bytes), { ...seat, queueSize: 4096 });
      for (const pool of [2, 3]) world.receiver(pool, { ...seat, queueSize: 4096 });
      const { gained } = measure(world, false, time);
      return gained(0, "tx_frames") / gained(1, "tx_frames");
    },
  };
}

/** Two busy VFs among so many attached ones whose rings are silent. */
function attached(vfs: number, burst: number, base: string | undefined): Row {
  const name = `${vfs} VFs attached, two busy, bursts of ${burst}`;
  return drained(name, base === undefined ? undefined : 1.1, (kit) => {
    const world = new World(kit, vfs);
    const seat = { queueSize: burst, buffers: { ...SMALL, slots: burst } };
    world.sender(0, world.frames(world.mac(0), [world.mac(1)]), seat);
    world.receiver(1, { queueSize: QUEUE });
    for (let vf = 2; vf < vfs; vf++) world.receiver(vf, { queueSize: 64, buffers: { strideBytes: 256, slots: 64 } });
    return world;
  }, { base: base ?? ONE_FLOW, heavy: true });
}

/** A sender beside a VF that has a minimum rate and says nothing. */
function beside(vfs: number, minTxRate: number, base?: string): Row {
  const SILENT = 2;
  return {
    name: minTxRate === 0 ? "a sender alone, 1514 B" : `a sender beside a silent VF with minTxRate, ${vfs} VFs, 1514 B`,
    unit: "Gbit/s",
    ...(base === undefined ? {} : { base, goal: { atLeast: 0.9 } }),
    heavy: vfs > 100,
    run(kit, time) {
      const world = new World(kit, vfs, { [SILENT]: { minTxRate } });
      world.sender(0, world.frames(world.mac(0), [world.mac(1)], 1514), LARGE_SEAT);
      world.receiver(1, LARGE_SEAT);
      for (let vf = SILENT; vf < vfs; vf++) world.receiver(vf, { queueSize: 64, buffers: { ...LARGE, slots: 64 } });
      return 1514 * 8 / measure(world, true, time).nsPerFrame;
    },
  };
}

const TWO = (burst: number) => `2 VFs attached, two busy, bursts of ${burst}`;
const ALONE = "a sender alone, 1514 B";
const HONEST = "a neighbour beside an honest receiver";

/** All rows, each after the one it is held against. */
export const ROWS: readonly Row[] = [
  drained(ONE_FLOW, undefined, (kit) => pair(kit), { goalAgainst: NO_SLOWER }),
  drained("2 destinations in turn", 1.3, (kit) => fanOut(kit, 2)),
  drained("8 destinations in turn", 1.5, (kit) => fanOut(kit, 8)),
  drained("64 destinations in turn", 2, (kit) => fanOut(kit, 64)),
  drained("guest's own tag", 1.5, (kit) => pair(kit, { trunk: [VLAN] }, VLAN)),
  drained("VST to VST", 1.5, (kit) => pair(kit, { vlan: VLAN })),
  drained("uplink to VF", 1.5, (kit) => uplink(kit, true)),
  drained("VF to uplink", 1.5, (kit) => uplink(kit, false)),
  mixed("split", "advanced"),
  mixed("advanced", "split"),
  mixed("advanced", "advanced"),
  mixed("packed", "packed"),
  mixed("packed in-order", "packed in-order"),
  mixed("split in-order", "split in-order"),
  mixed("split", "packed"),
  mixed("packed", "split"),
  mixed("advanced", "packed"),
  mixed("packed", "advanced"),
  ...checksumRows(ONE_FLOW),
  captured(ONE_FLOW),
  drained("guest RAM in two regions", 1.1, twoRegions),
  drained("one flow, 1514 B", undefined, (kit) => {
    const world = new World(kit, 2);
    world.sender(0, world.frames(world.mac(0), [world.mac(1)], 1514), LARGE_SEAT);
    world.receiver(1, LARGE_SEAT);
    return world;
  }, { goalAgainst: NO_SLOWER }),
  manyQueues(1514),
  manyQueues(4000),
  attached(2, QUEUE, undefined),
  attached(250, QUEUE, TWO(QUEUE)),
  attached(2, 32, undefined),
  attached(250, 32, TWO(32)),
  besideHostile(HONEST, 0),
  { ...besideHostile("a neighbour beside a hostile receiver, 1 region", 1), base: HONEST, goal: { atLeast: 0.5 } },
  { ...besideHostile("a neighbour beside a hostile receiver, 64 regions", 64), base: HONEST, goal: { atLeast: 0.5 } },
  beside(3, 0),
  ...[3, 64, 250].map((vfs) => beside(vfs, 1000, ALONE)),
  patchPause(250),
];
