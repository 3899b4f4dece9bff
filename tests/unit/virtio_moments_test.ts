/**
 * The virtio plugin against a device that acts at any moment, between any two accesses of the plugin to a ring: it sees
 * whole frames only, and neither a kick nor an interrupt is lost.
 */
import { assert, assertEquals } from "@std/assert";
import { LIST_MAX } from "../../shared/layout/plugin.ts";
import { Random } from "../fuzz/random.ts";
import type { DeviceRing } from "../support/mock_device.ts";
import { MockNet } from "../support/mock_net.ts";
import { featureSets, join, PluginRig, type RigFeatures, sameBytes } from "../support/plugin_rig.ts";

const SEED = 8_080_801;
const ROUNDS = 800;
const POOL = new Random(SEED).bytes(8192);

/** A device that sleeps and wakes, on the other side of a driver that does. */
class Moments {
  readonly #rig: PluginRig;
  readonly #net: MockNet;
  readonly #random: Random;
  readonly #features: RigFeatures;
  readonly #asleep = new Set<DeviceRing>();
  readonly #sent: Uint8Array[] = [];
  readonly #delivered: Uint8Array[] = [];
  #interrupted = false;
  /** How often something of this kind happened: a test in which nothing does shows nothing. */
  readonly seen = { arrivals: 0, sleeps: 0, kicks: 0, interrupts: 0, received: 0 };

  constructor(features: RigFeatures, size: number, random: Random) {
    this.#random = random;
    this.#features = features;
    let started = false;
    this.#rig = new PluginRig(features, size, {
      watch: () => {
        if (started && random.chance(3)) this.#act();
      },
    });
    this.#net = new MockNet(this.#rig, features, random);
    this.#rig.onKick = (queue) => {
      this.seen.kicks++;
      const ring = this.#rig.rings[queue] as DeviceRing;
      this.#asleep.delete(ring);
      ring.ask("never");
    };
    for (const ring of [this.#net.rx, this.#net.tx]) ring.ask("never");
    started = true;
  }

  /** The device does something. */
  #act(): void {
    const { rx, tx } = this.#net;
    const before = rx.usedCount;
    switch (this.#random.below(6)) {
      case 0:
        this.#net.transmit(1 + this.#random.below(3));
        return this.#net.completeTx(1 + this.#random.below(3));
      case 1:
        this.#deliver();
        this.#net.completeRx(1);
        if (rx.wantsInterrupt(before)) {
          this.#interrupted = true;
          this.seen.interrupts++;
        }
        return;
      case 2:
        return this.#sleep(this.#random.chance(2) ? rx : tx);
      default:
        for (const ring of [rx, tx]) if (!this.#asleep.has(ring)) this.seen.arrivals += this.#net.fetch(ring);
    }
  }

  #deliver(): void {
    const most = this.#features.mergeable ? 3 * this.#rig.rxBytes : this.#rig.rxBytes - this.#rig.hdrBytes;
    const frame = POOL.subarray(0, 1 + this.#random.below(most));
    if (this.#net.deliver(frame)) this.#delivered.push(frame);
  }

  /** Asks to be woken, looks once more, and sleeps if there is nothing. */
  #sleep(ring: DeviceRing): void {
    if (this.#asleep.has(ring)) return;
    ring.ask(this.#features.eventIdx && this.#random.chance(2) ? { at: ring.made } : "always");
    if (this.#net.fetch(ring) > 0) return ring.ask("never");
    this.#asleep.add(ring);
    this.seen.sleeps++;
  }

  #mustBeAwake(ring: DeviceRing): void {
    if (this.#asleep.has(ring)) assertEquals(this.#net.fetch(ring), 0, "the device sleeps, and was not kicked");
  }

  #send(): void {
    const most = this.#features.indirect ? 5 : Math.min(5, this.#rig.size);
    const frames = Array.from(
      { length: 1 + this.#random.below(4) },
      () =>
        Array.from({ length: 1 + this.#random.below(most) }, () => {
          const from = this.#random.below(8000);
          return POOL.subarray(from, from + 1 + this.#random.below(90));
        }),
    );
    const taken = this.#rig.send(frames);
    this.#sent.push(...frames.slice(0, taken).map((pieces) => join(pieces)));
    this.#mustBeAwake(this.#net.tx);
  }

  #receive(): void {
    for (const frame of this.#rig.receive(LIST_MAX)) {
      sameBytes(frame, this.#delivered.shift(), "received");
      this.seen.received++;
    }
  }

  /** The driver asks for an interrupt and sleeps, unless something has come; if something comes then, it is woken. */
  #arm(): void {
    this.#interrupted = false;
    if (this.#rig.plugin.arm(0) === 0) {
      for (let i = 0; i < 4; i++) this.#act();
      const before = this.seen.received;
      this.#receive();
      // What came while it looked is no loss; what it would have slept through is.
      if (!this.#interrupted) assertEquals(this.seen.received, before, "the driver sleeps, and was not interrupted");
    }
    this.#rig.plugin.disarm(0);
  }

  round(): void {
    switch (this.#random.below(6)) {
      case 0:
      case 1:
        return this.#send();
      case 2:
        this.#rig.post(1 + this.#random.below(this.#rig.size));
        return this.#mustBeAwake(this.#net.rx);
      case 3:
        return this.#receive();
      case 4:
        return this.#arm();
      default:
        this.#rig.done(LIST_MAX);
    }
  }

  end(): void {
    this.#asleep.clear();
    this.#net.fetch();
    this.#net.transmit(Infinity);
    assertEquals(this.#net.arrived.length, this.#sent.length);
    this.#net.arrived.forEach((frame, i) => sameBytes(frame, this.#sent[i], `frame ${i}`));
    assertEquals(this.#rig.gaveUp, false, "the device is honest");
  }
}

for (const [name, features] of featureSets()) {
  Deno.test(`${name}: a device that acts between any two accesses sees whole frames, and nobody sleeps too long`, () => {
    for (const size of features.packed ? [5, 16] : [4, 16]) {
      const seed = SEED + size;
      const moments = new Moments(features, size, new Random(seed));
      try {
        for (let i = 0; i < ROUNDS; i++) moments.round();
        moments.end();
        const { seen } = moments;
        assert(Object.values(seen).every((times) => times > 3), JSON.stringify(seen));
      } catch (error) {
        throw new Error(`size ${size}, seed ${seed}: ${(error as Error).message}`, { cause: error });
      }
    }
  });
}
