/** The virtio plugin against a mock device: split and packed rings, in every set of features. */
import { assert, assertEquals } from "@std/assert";
import * as P from "../../shared/layout/plugin.ts";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "../../shared/layout/virtio.ts";
import { Random } from "../fuzz/random.ts";
import type { Chain, DeviceRing } from "../support/mock_device.ts";
import { MockNet } from "../support/mock_net.ts";
import { featureSets, join, PLAIN, PluginRig, type RigFeatures, sameBytes } from "../support/plugin_rig.ts";

const SEED = 20_260_801;
/** Rounds of play for a ring of `size`: it is gone through several times. */
const rounds = (size: number) => 400 + 6 * size;
const SPLIT_SIZES = [2, 4, 16, 256];
const PACKED_SIZES = [2, 3, 5, 16, 100, 256];

/** Bytes to make frames of. */
const POOL = new Random(SEED).bytes(65_536);

/** A shell and a device that do this and that with one queue pair, and what each knows of it. */
class Play {
  readonly rig: PluginRig;
  readonly net: MockNet;
  readonly #random: Random;
  readonly #features: RigFeatures;
  readonly #toArrive: Uint8Array[] = [];
  readonly #toReceive: Uint8Array[] = [];
  frames = 0;
  kicks = 0;

  constructor(features: RigFeatures, size: number, random: Random) {
    this.rig = new PluginRig(features, size);
    this.net = new MockNet(this.rig, features, random);
    this.#random = random;
    this.#features = features;
    // A device that is kicked finds everything that it is kicked for.
    this.rig.onKick = (queue) => void this.net.fetch(this.rig.rings[queue]);
  }

  /** Has the driver make something available, and compares whether it kicks with whether the device wants it. */
  #offer(ring: DeviceRing, queue: number, act: () => void): void {
    const before = ring.made;
    this.rig.kicks = [];
    act();
    const kicked = this.rig.kicks.length > 0;
    const late = this.net.fetch(ring);
    if (kicked) assertEquals(late, 0, "something became available after the kick");
    assertEquals(this.rig.kicks, ring.mustKick(before) ? [queue] : [], `a kick for ${before} to ${ring.made}`);
    this.kicks += this.rig.kicks.length;
  }

  /** A frame of random bytes, in pieces. */
  #pieces(): Uint8Array[] {
    // Without indirect tables a chain is no longer than the ring.
    const most = this.#features.indirect ? 8 : Math.min(6, this.rig.size);
    return Array.from({ length: 1 + this.#random.below(most) }, () => this.#bytes(1 + this.#random.below(120)));
  }

  #bytes(length: number): Uint8Array {
    const from = this.#random.below(POOL.length - length);
    return POOL.subarray(from, from + length);
  }

  send(): void {
    const frames = Array.from({ length: 1 + this.#random.below(8) }, () => this.#pieces());
    this.#offer(this.net.tx, this.net.txQueue, () => {
      const taken = this.rig.send(frames);
      for (const pieces of frames.slice(0, taken)) this.#toArrive.push(join(pieces));
      this.frames += taken;
    });
  }

  post(): void {
    this.#offer(this.net.rx, this.net.rxQueue, () => this.rig.post(1 + this.#random.below(this.rig.size)));
  }

  deliver(): void {
    const most = this.#features.mergeable ? 3 * this.rig.rxBytes : this.rig.rxBytes - this.rig.hdrBytes;
    // Often exactly full buffers: those are what a batch may skip.
    const full = (1 + this.#random.below(3)) * this.rig.rxBytes - this.rig.hdrBytes;
    const length = this.#random.chance(3) ? Math.min(full, most) : 1 + this.#random.below(most);
    const frame = this.#bytes(length);
    if (this.net.deliver(frame)) this.#toReceive.push(frame);
  }

  receive(max: number): void {
    for (const frame of this.rig.receive(max)) sameBytes(frame, this.#toReceive.shift(), "received");
  }

  /** Asks for an interrupt with nothing left to take in, and compares with when the device would raise one. */
  sleep(): void {
    const { rx } = this.net;
    this.receive(P.LIST_MAX);
    assertEquals(this.rig.plugin.arm(0), 0, "nothing has come in");
    const before = rx.usedCount;
    this.net.completeRx(1 + this.#random.below(3));
    assertEquals(rx.wantsInterrupt(before), rx.usedCount !== before, "an armed driver wants an interrupt");
    assertEquals(this.rig.plugin.arm(0), rx.usedCount !== before ? 1 : 0, "what came before it is armed is noticed");
    this.receive(P.LIST_MAX);
    this.rig.plugin.disarm(0);
    this.#quietly();
  }

  /** A driver that polls wants no interrupts, for receive and transmit buffers. */
  #quietly(): void {
    const { rx, tx } = this.net;
    const before = [rx.usedCount, tx.usedCount] as const;
    this.net.completeRx(2);
    this.net.completeTx(2);
    assertEquals(rx.wantsInterrupt(before[0]), false, "a driver that polls wants no interrupt");
    // A split ring with EVENT_IDX cannot say so: the index that it names is passed once.
    if (before[1] > 0) assertEquals(tx.wantsInterrupt(before[1]), false);
  }

  #device(): void {
    const { net } = this;
    net.transmit(this.#random.below(6));
    if (this.#random.chance(2)) net.completeTx(1 + this.#random.below(8));
    for (let i = this.#random.below(4); i > 0; i--) this.deliver();
    if (this.#random.chance(2)) net.completeRx(1 + this.#random.below(4), this.#random.below(3));
  }

  round(): void {
    for (const ring of [this.net.rx, this.net.tx]) this.net.wish(ring);
    switch (this.#random.below(8)) {
      case 0:
      case 1:
        return this.send();
      case 2:
        return this.post();
      case 3:
        return this.receive(1 + this.#random.below(P.LIST_MAX));
      case 4:
        return void this.rig.done(8 + this.#random.below(P.LIST_MAX - 8));
      case 5:
        return this.sleep();
      default:
        return this.#device();
    }
  }

  /** Everything that is on its way gets there; then nobody has anything. */
  end(): void {
    this.net.transmit(Infinity);
    this.net.completeTx(Infinity);
    this.net.completeRx(Infinity);
    while (this.rig.done(P.LIST_MAX).length > 0) assertEquals(this.rig.gaveUp, false, "the device is honest");
    for (let before = -1; before !== this.#toReceive.length;) {
      before = this.#toReceive.length;
      this.receive(P.LIST_MAX);
    }
    assertEquals(this.#toReceive.length, 0, "frames that were delivered and not reported");
    assertEquals(this.net.arrived.length, this.#toArrive.length, "frames that arrived, of those that were sent");
    this.net.arrived.forEach((frame, i) => sameBytes(frame, this.#toArrive[i], `frame ${i}`));
    assertEquals(this.rig.sending.size, 0, "buffers that were sent and not given back");
    assertEquals(this.rig.posted.size, this.net.held.rx, "receive buffers that only the plugin has");
    assertEquals(this.net.held.tx, 0);
  }
}

for (const [name, features] of featureSets()) {
  Deno.test(`${name}: whatever the order of events, every frame arrives once and every buffer comes back once`, () => {
    for (const size of features.packed ? PACKED_SIZES : SPLIT_SIZES) {
      const seed = SEED + size;
      const play = new Play(features, size, new Random(seed));
      try {
        for (let i = rounds(size); i > 0; i--) play.round();
        play.end();
        const { rx, tx } = play.net;
        assert(Math.min(rx.made, tx.made) > 2 * size && play.kicks > 5, `${rx.made}, ${tx.made}, ${play.kicks} kicks`);
      } catch (error) {
        throw new Error(`size ${size}, seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  });
}

Deno.test("the plugin takes up packed rings and IN_ORDER where they are negotiated, and says so", () => {
  const bit = (n: number) => 1n << BigInt(n);
  for (const packed of [false, true]) {
    for (const inOrder of [false, true]) {
      const { accepted } = new PluginRig({ ...PLAIN, packed, inOrder }, 16);
      assertEquals(accepted, (packed ? bit(VIRTIO_F_RING_PACKED) : 0n) | (inOrder ? bit(VIRTIO_F_IN_ORDER) : 0n));
    }
  }
});

Deno.test("rings have the sizes that their format can have", () => {
  const starts = (packed: boolean, size: number) => {
    try {
      new PluginRig({ ...PLAIN, packed }, size);
      return true;
    } catch {
      return false;
    }
  };
  for (const size of [2, 4, 512, 1024]) {
    assertEquals([starts(false, size), starts(true, size)], [true, true], `${size}`);
  }
  for (const size of [3, 1000, 1023]) assertEquals([starts(false, size), starts(true, size)], [false, true], `${size}`);
  for (const size of [0, 1, 1025, 2048]) {
    assertEquals([starts(false, size), starts(true, size)], [false, false], `${size}`);
  }
});

/** Both formats with IN_ORDER, mergeable buffers and whatever else. */
const IN_ORDER = [...featureSets()].filter(([, { inOrder, mergeable }]) => inOrder && mergeable);

Deno.test("IN_ORDER: one used element for many buffers gives all of them back", () => {
  for (const [name, features] of IN_ORDER) {
    const rig = new PluginRig(features, 32);
    const [rx, tx] = rig.rings as [DeviceRing, DeviceRing];
    const frame = (pieces: number) => Array.from({ length: pieces }, () => new Uint8Array(64));
    assertEquals(rig.send([frame(1), frame(3), frame(2), frame(1)]), 4);
    const sent = Array.from({ length: 4 }, () => ({ chain: tx.take() as Chain, written: 0 }));
    tx.use(sent, true);
    // In two goes, the first of which ends in the middle of the batch.
    assertEquals([rig.done(5).length, rig.done(5).length, rig.done(5).length], [4, 3, 0], name);

    // One frame of three buffers, two of them full.
    assertEquals(rig.post(8), 8);
    const filled = Array.from(
      { length: 3 },
      (_, i) => ({ chain: rx.take() as Chain, written: i < 2 ? rig.rxBytes : 100 }),
    );
    rig.view.setUint16((filled[0]?.chain.segments[0]?.at ?? 0) + 10, 3, true);
    rx.use(filled, true);
    assertEquals(rig.entries(2), [], "a frame is reported whole, or later");
    const lengths = rig.entries(P.LIST_MAX).map(({ length, last }) => [length, last]);
    assertEquals(lengths, [[rig.rxBytes - rig.hdrBytes, false], [rig.rxBytes, false], [100, true]], name);
    assertEquals([rig.sending.size, rig.posted.size], [0, 5]);
  }
});

Deno.test("a frame is reported when all its buffers are there, and only then", () => {
  for (const [name, features] of featureSets()) {
    if (!features.mergeable) continue;
    const random = new Random(SEED);
    const rig = new PluginRig(features, 16);
    const net = new MockNet(rig, features, random);
    rig.post(16);
    net.fetch();
    const frame = POOL.subarray(0, 5 * rig.rxBytes - rig.hdrBytes);
    assert(net.deliver(frame));
    net.completeRx(1, 3);
    assertEquals(rig.receive(P.LIST_MAX), [], `${name}: two of five`);
    assertEquals(rig.plugin.arm(0), 0, "nothing can be done with what is there");
    net.completeRx(1, 1);
    assertEquals(rig.receive(P.LIST_MAX), [], `${name}: four of five`);
    // The buffers that it keeps are the device's no more: there is room for others.
    assertEquals(rig.post(16), 4);
    net.completeRx(1);
    const [received] = rig.receive(P.LIST_MAX);
    sameBytes(received as Uint8Array, frame, name);
  }
});

Deno.test("without VERSION_1 and mergeable buffers the header has ten bytes", () => {
  const features = { ...PLAIN, modern: false };
  const rig = new PluginRig(features, 16);
  const net = new MockNet(rig, features, new Random(SEED));
  rig.post(4);
  rig.send([[POOL.subarray(0, 99)]]);
  net.fetch();
  net.transmit(1);
  sameBytes(net.arrived[0] as Uint8Array, POOL.subarray(0, 99), "sent");
  assert(net.deliver(POOL.subarray(0, rig.rxBytes - 10)));
  net.completeRx(1);
  sameBytes(rig.receive(1)[0] as Uint8Array, POOL.subarray(0, rig.rxBytes - 10), "received");
});

Deno.test("queue pairs have rings of their own", () => {
  for (const packed of [false, true]) {
    const features = { ...PLAIN, packed, mergeable: true, indirect: true };
    const rig = new PluginRig(features, P.PLUGIN_RING_SIZE_MAX, { pairs: P.PLUGIN_QUEUE_PAIRS_MAX });
    const nets = rig.rings.slice(0, P.PLUGIN_QUEUE_PAIRS_MAX).map((_, pair) =>
      new MockNet(rig, features, new Random(SEED + pair), pair)
    );
    for (const pair of nets.keys()) {
      rig.post(64, pair);
      rig.send([[POOL.subarray(pair, pair + 80), POOL.subarray(0, 70)]], pair);
    }
    nets.forEach((net, pair) => {
      assertEquals(net.fetch(), 65);
      net.transmit(1);
      sameBytes(net.arrived[0] as Uint8Array, join([POOL.subarray(pair, pair + 80), POOL.subarray(0, 70)]), `${pair}`);
      assert(net.deliver(POOL.subarray(0, 3000 + pair)));
      net.completeRx(1);
      net.completeTx(1);
    });
    for (const pair of nets.keys()) {
      assertEquals(rig.done(P.LIST_MAX, pair).length, 2);
      sameBytes(rig.receive(P.LIST_MAX, pair)[0] as Uint8Array, POOL.subarray(0, 3000 + pair), `${pair}`);
    }
    assertEquals(rig.sending.size, 0);
  }
});
