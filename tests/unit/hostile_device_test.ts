/**
 * The virtio plugin against a device that lies. It is the NIC's or a back-end's word against the plugin's books: what
 * is reported is what was handed over, once, or that the device broke the protocol; and nothing outside is touched.
 */
import { assert, assertEquals } from "@std/assert";
import * as P from "../../shared/layout/plugin.ts";
import * as V from "../../shared/layout/virtio.ts";
import { Random } from "../fuzz/random.ts";
import { PackedRing, SplitRing } from "../support/mock_device.ts";
import { MockNet } from "../support/mock_net.ts";
import { featureSets, PLAIN, PluginRig, type RigFeatures } from "../support/plugin_rig.ts";

const SIZE = 8;
const RX = 0;
const TX = 1;
const USED = V.VIRTQ_PACKED_DESC_F_AVAIL | V.VIRTQ_PACKED_DESC_F_USED;

/** Writes what a device writes, whatever it is. */
class Liar {
  readonly rig: PluginRig;
  readonly features: RigFeatures;
  /** Used index (split) or place (packed) of each ring. */
  readonly #next = [0, 0];

  constructor(features: Partial<RigFeatures>, size = SIZE) {
    this.features = { ...PLAIN, ...features };
    this.rig = new PluginRig(this.features, size);
  }

  /** Says that buffer `id` has been used, and skips `places`. */
  use(queue: number, id: number, length: number, places = 1): void {
    const { view, size } = this.rig;
    const ring = this.rig.rings[queue];
    const next = this.#next[queue] ?? 0;
    if (ring instanceof SplitRing) {
      const at = ring.used + V.VIRTQ_USED_RING + (next % size) * V.VIRTQ_USED_ELEM_BYTES;
      view.setUint32(at, id, true);
      view.setUint32(at + 4, length, true);
      view.setUint16(ring.used + V.VIRTQ_USED_IDX, (next + places) & 0xffff, true);
    } else if (ring instanceof PackedRing) {
      const at = ring.desc + (next % size) * V.VIRTQ_DESC_BYTES;
      view.setUint32(at + V.VIRTQ_PACKED_DESC_LEN, length, true);
      view.setUint16(at + V.VIRTQ_PACKED_DESC_ID, id, true);
      view.setUint16(at + V.VIRTQ_PACKED_DESC_FLAGS, Math.floor(next / size) % 2 === 0 ? USED : 0, true);
    }
    this.#next[queue] = next + places;
  }

  /** Sends frames of so many pieces each. */
  send(...pieces: number[]): void {
    const frames = pieces.map((count) => Array.from({ length: count }, () => new Uint8Array(60)));
    assertEquals(this.rig.send(frames), pieces.length);
  }

  /** What num_buffers of the first receive buffer says. */
  nameBuffers(count: number): void {
    const [buffer = 0] = this.rig.posted;
    this.rig.view.setUint16(this.rig.bufferAt(buffer) + 64 - this.rig.hdrBytes + 10, count, true);
  }
}

/** The id of the first frame if it has `pieces` pieces: with packed rings and IN_ORDER the place of its last. */
const idOf = ({ packed, inOrder }: RigFeatures, pieces: number) => packed && inOrder ? pieces - 1 : 0;

/** Lies for which a plugin gives up. Each is told where the features are these; three frames are with the device. */
const LIES: [string, Partial<RigFeatures>, (liar: Liar) => void][] = [
  ["an id that no ring has", {}, (liar) => liar.use(TX, 0xffff, 0)],
  ["an id that is the ring's size", {}, (liar) => liar.use(TX, SIZE, 0)],
  ["an id that was not handed over", {}, (liar) => liar.use(TX, 6, 0)],
  ["the same id twice", { inOrder: false }, (liar) => {
    liar.use(TX, 1, 0);
    liar.use(TX, 1, 0);
  }],
  ["the middle of a chain", { inOrder: false, indirect: false }, (liar) => {
    liar.send(3);
    liar.use(TX, 4, 0);
  }],
  ["a batch that ends in the middle of a frame", { packed: true, inOrder: true, indirect: false }, (liar) => {
    liar.send(3);
    liar.use(TX, 4, 0);
  }],
  ["a batch beyond what was handed over", { packed: true, inOrder: true }, (liar) => liar.use(TX, 3, 0)],
  ["more than was handed over", { packed: false }, (liar) => liar.use(TX, 0, 0, 4)],
  ["a used index that runs away", { packed: false }, (liar) => liar.use(TX, 0, 0, 0x7fff)],
  ["a used index that goes back", { packed: false }, (liar) => {
    liar.use(TX, 0, 0, 3);
    liar.rig.done(P.LIST_MAX);
    liar.use(TX, 0, 0, 0xffff);
  }],
];

for (const [name, where, lie] of LIES) {
  Deno.test(`${name}: the plugin gives up, and says so each time it is asked`, () => {
    for (const [set, features] of featureSets()) {
      if (Object.entries(where).some(([key, value]) => features[key as keyof RigFeatures] !== value)) continue;
      // In a split ring with IN_ORDER nobody looks at the ids of what was sent: the used index says it all.
      if (!features.packed && features.inOrder && /^an id/.test(name)) continue;
      const liar = new Liar(features);
      liar.send(1, 1, 1);
      lie(liar);
      const first = liar.rig.done(P.LIST_MAX);
      assert(first.length <= 4, `${set}: more comes back than the three frames: ${first}`);
      assert(liar.rig.gaveUp, `${set}: ${first}`);
      assertEquals(liar.rig.done(P.LIST_MAX), [P.NO_BUFFER], set);
      assertEquals(liar.rig.done(0), [], set);
      // The receive queue goes on.
      assertEquals(liar.rig.post(2), 2);
      liar.use(RX, 0, 100);
      assertEquals(liar.rig.entries(1).map(({ length }) => length), [100 - liar.rig.hdrBytes], set);
    }
  });
}

/** Lies about what was received: the id of the used buffer, and how many the frame has. */
const RX_LIES: [string, Partial<RigFeatures>, number, number][] = [
  ["an id that no ring has", {}, 0xffff, 1],
  ["an id that is the ring's size", {}, SIZE, 1],
  ["an id that was not handed over", {}, 5, 1],
  ["a frame of more buffers than the ring has", { mergeable: true }, 0, SIZE + 1],
  ["a frame of 65535 buffers", { mergeable: true }, 0, 65535],
];

for (const [name, where, id, buffers] of RX_LIES) {
  Deno.test(`received: ${name}: the plugin gives up, and says so each time it is asked`, () => {
    for (const [set, features] of featureSets()) {
      if (Object.entries(where).some(([key, value]) => features[key as keyof RigFeatures] !== value)) continue;
      const liar = new Liar(features);
      liar.rig.post(4);
      liar.nameBuffers(buffers);
      liar.use(RX, id, 100);
      liar.rig.entries(P.LIST_MAX);
      // With IN_ORDER an id that is further on is a batch, up to the first buffer that the device does not have.
      for (let i = 0; i < 2; i++) liar.rig.entries(P.LIST_MAX);
      assert(liar.rig.gaveUp, set);
      assertEquals(liar.rig.entries(P.LIST_MAX).map(({ buffer, length }) => [buffer, length]), [[P.NO_BUFFER, 0]], set);
      // The transmit queue goes on.
      liar.send(1);
      liar.use(TX, idOf(features, 1), 0);
      assertEquals(liar.rig.done(P.LIST_MAX).length, 1, set);
    }
  });
}

Deno.test("what a device says of a frame's length and number of buffers is held to what there is", () => {
  for (const [set, features] of featureSets()) {
    for (const [length, wanted] of [[0xffff_ffff, undefined], [5, 0], [0, 0], [12, 0], [13, 1]] as const) {
      const liar = new Liar(features);
      liar.rig.post(4);
      liar.nameBuffers(0);
      liar.use(RX, 0, length);
      const found = liar.rig.entries(P.LIST_MAX).map((entry) => [entry.length, entry.last]);
      assertEquals(found, [[wanted ?? liar.rig.rxBytes - liar.rig.hdrBytes, true]], `${set}: ${length}`);
      assertEquals(liar.rig.gaveUp, false);
    }
  }
});

/** What may be written by nobody but others: the plugin's memory but for its own parts, from here to there. */
const OTHERS: [string, number, number][] = [
  ["below the state", 0, P.PLUGIN_STATE],
  ["configuration and other queues' names", P.PLUGIN_STATE + P.PC_ACCEPTED + 8, P.PLUGIN_QUEUES],
  ["other queues' names", P.PLUGIN_QUEUES + 2 * P.PLUGIN_QUEUE_STRIDE, P.PLUGIN_PRIVATE],
  ["other queues' state", P.PLUGIN_PRIVATE + 2 * 64, P.PLUGIN_PRIVATE + 0x800],
  ["behind LIST_DONE", P.LIST_DONE + P.LIST_MAX * 4, P.LIST_POST],
  ["behind LIST_RX", P.LIST_RX + P.LIST_MAX * P.ENTRY_BYTES, P.PLUGIN_RINGS],
  ["other queues' rings", P.PLUGIN_RINGS + 2 * P.PLUGIN_RING_STRIDE, P.PLUGIN_BUFFERS],
];
const CANARY = 0xa5;
/** How much of a long range holds canaries, at both ends. */
const EDGE_BYTES = 4096;
const SEEDS = 24;
/** Buffers that the shell of these tests has; nobody has the others. */
const BUFFERS = 300;

/** Scribbles over what the device can write: rings, tables, events, the beginnings of buffers. */
function scribble({ rig }: Liar, random: Random): void {
  for (let i = random.below(6); i > 0; i--) {
    const queue = random.below(2);
    const ring = rig.rings[queue];
    const base = P.PLUGIN_RINGS + queue * P.PLUGIN_RING_STRIDE;
    const areas = ring instanceof SplitRing
      ? [[ring.desc, rig.size * 16], [ring.avail, 6 + rig.size * 2], [ring.used, 6 + rig.size * 8]] as const
      : [[base, rig.size * 16], [base, rig.size * 16 + 256]] as const;
    const [from, bytes] = random.pick([...areas, [base + 0x8000, 1024], [P.PLUGIN_BUFFERS, BUFFERS * 2048]] as const);
    const at = from + random.below(bytes >> 1) * 2;
    rig.view.setUint16(at, random.chance(2) ? random.u16() : random.pick([0, 1, 2, 4, 0x80, 0x8000, USED]), true);
  }
}

/** The bytes from `from` to `end` that hold canaries: all of a short range, both ends of a long one. */
function guarded({ bytes }: PluginRig, from: number, end: number): Uint8Array[] {
  if (end - from <= 2 * EDGE_BYTES) return [bytes.subarray(from, end)];
  return [bytes.subarray(from, from + EDGE_BYTES), bytes.subarray(end - EDGE_BYTES, end)];
}

/** Where the first canary from `from` to `end` is that somebody has written over; -1 if all are there. */
function touchedIn(rig: PluginRig, from: number, end: number): number {
  for (const edge of guarded(rig, from, end)) {
    const at = edge.findIndex((byte) => byte !== CANARY);
    if (at >= 0) return edge.byteOffset + at;
  }
  return -1;
}

/** A device that is honest for the most part, and whose lies confuse itself too. */
function act(liar: Liar, net: MockNet, random: Random, lies: number): void {
  try {
    net.fetch();
    net.transmit(random.below(4));
    net.completeTx(random.below(4));
    net.deliver(new Uint8Array(1 + random.below(liar.features.mergeable ? 5000 : 1900)));
    net.completeRx(random.below(3));
  } catch {
    // It finds its own scribbles in the ring.
  }
  if (random.below(1000) >= lies) return;
  if (random.chance(2)) scribble(liar, random);
  else liar.use(random.below(2), random.below(liar.rig.size + 1), random.u32(), 1 + random.below(2));
}

for (const [set, features] of featureSets()) {
  Deno.test(`${set}: whatever a device writes, and when, the books are right and nothing else is touched`, () => {
    let broken = 0;
    for (let seed = 0; seed < SEEDS; seed++) {
      const random = new Random(77_000 + seed);
      const liar = new Liar(features, random.pick(features.packed ? [2, 3, 8, 61] : [2, 8, 64]));
      const { rig } = liar;
      const net = new MockNet(rig, features, random);
      const lies = random.pick([3, 30, 300, 1000]);
      const others: typeof OTHERS = [...OTHERS, ["others' buffers", rig.bufferAt(BUFFERS), rig.bytes.length]];
      for (const [, from, end] of others) for (const edge of guarded(rig, from, end)) edge.fill(CANARY);
      rig.free = rig.free.slice(0, BUFFERS);
      const acts = [
        () => rig.send([Array.from({ length: 1 + random.below(3) }, () => new Uint8Array(64))]),
        () => rig.post(1 + random.below(rig.size)),
        () => rig.done(random.below(P.LIST_MAX)),
        () => rig.entries(random.below(P.LIST_MAX)),
        () => rig.plugin.arm(0) + Number(rig.plugin.disarm(0) ?? 0),
        () => act(liar, net, random, lies),
        () => act(liar, net, random, lies),
      ];
      for (let i = 0; i < 200; i++) random.pick(acts)();
      if (rig.gaveUp) broken++;
      for (const [what, from, end] of others) assertEquals(touchedIn(rig, from, end), -1, `seed ${seed}: ${what}`);
      assertEquals(rig.free.length + rig.sending.size + rig.posted.size, BUFFERS, `seed ${seed}: the books`);
    }
    assert(broken > SEEDS / 8 && broken < SEEDS, `the plugin gave up in ${broken} of ${SEEDS}`);
  });
}
