/**
 * A network device over a mock ring: it takes the driver's frames, fills its receive buffers, and gives both back when
 * it likes, in the order and in the batches that were negotiated.
 */
import { assert } from "@std/assert";
import type { Random } from "../fuzz/random.ts";
import type { Chain, DeviceRing, Segment, Used, Wish } from "./mock_device.ts";
import { join, type PluginRig, type RigFeatures } from "./plugin_rig.ts";

/** One queue pair of the device. */
export class MockNet {
  readonly #rig: PluginRig;
  readonly #features: RigFeatures;
  readonly #random: Random;
  readonly rxQueue: number;
  readonly txQueue: number;
  /** Frames that have arrived, in order, and the headers before them. */
  arrived: Uint8Array[] = [];
  readonly headers: Uint8Array[] = [];
  /** Chains that the device has fetched and not looked at: what is to be sent, and what can be filled. */
  readonly #txBacklog: Chain[] = [];
  readonly #rxBacklog: Chain[] = [];
  /** What it is through with, and has not given back. */
  #sent: Used[] = [];
  #filled: Used[][] = [];

  constructor(rig: PluginRig, features: RigFeatures, random: Random, pair = 0) {
    this.#rig = rig;
    this.#features = features;
    this.#random = random;
    this.rxQueue = pair * 2;
    this.txQueue = pair * 2 + 1;
  }

  get rx(): DeviceRing {
    return this.#rig.rings[this.rxQueue] as DeviceRing;
  }

  get tx(): DeviceRing {
    return this.#rig.rings[this.txQueue] as DeviceRing;
  }

  /** Fetches everything that the driver has made available, of one ring or both; answers how many chains. */
  fetch(only?: DeviceRing): number {
    let fetched = 0;
    for (
      const [ring, backlog, write] of [[this.rx, this.#rxBacklog, true], [this.tx, this.#txBacklog, false]] as const
    ) {
      if (only && only !== ring) continue;
      for (let chain = ring.take(); chain; chain = ring.take()) {
        assert(chain.segments.every((segment) => segment.write === write), "the buffers have the right direction");
        backlog.push(chain);
        fetched++;
      }
    }
    return fetched;
  }

  /** Buffers of the device: all that it has fetched and not given back. */
  get held(): { rx: number; tx: number } {
    return {
      rx: this.#rxBacklog.length + this.#filled.flat().length,
      tx: this.#txBacklog.length + this.#sent.length,
    };
  }

  /** Buffers that can be filled. */
  get room(): number {
    return this.#rxBacklog.length;
  }

  /** Sends up to `count` frames that wait. */
  transmit(count: number): void {
    for (const chain of this.#txBacklog.splice(0, count)) {
      const bytes = join(chain.segments.map(({ at, bytes }) => this.#rig.bytes.slice(at, at + bytes)));
      const { hdrBytes } = this.#rig;
      const header = bytes.subarray(0, hdrBytes);
      if (!this.#features.offloads) assert(header.every((byte) => byte === 0), "the virtio-net header is all zero");
      this.headers.push(header);
      this.arrived.push(bytes.subarray(hdrBytes));
      this.#sent.push({ chain, written: 0 });
    }
  }

  /** Gives back up to `count` chains that have been sent. */
  completeTx(count: number): void {
    const n = Math.min(count, this.#sent.length);
    if (!this.#features.inOrder) {
      for (let i = 0; i < n; i++) this.tx.use(this.#sent.splice(this.#random.below(this.#sent.length), 1), false);
      return;
    }
    for (let left = n; left > 0;) {
      const batch = this.#sent.splice(0, 1 + this.#random.below(left));
      left -= batch.length;
      this.tx.use(batch, this.#random.chance(2));
    }
  }

  /** Writes a frame into receive buffers, its header as given; false if there is no room, or it does not fit. */
  deliver(frame: Uint8Array, says?: Uint8Array): boolean {
    const { hdrBytes, rxBytes } = this.#rig;
    const buffers = Math.ceil((hdrBytes + frame.length) / rxBytes);
    if (buffers > this.#rxBacklog.length || (buffers > 1 && !this.#features.mergeable)) return false;
    const header = new Uint8Array(hdrBytes).fill(0x5a);
    header.set(says ?? []);
    if (hdrBytes === 12) new DataView(header.buffer).setUint16(10, buffers, true);
    const bytes = join([header, frame]);
    const used: Used[] = [];
    for (let at = 0; at < bytes.length; at += rxBytes) {
      const which = this.#features.inOrder ? 0 : this.#random.below(this.#rxBacklog.length);
      const [chain] = this.#rxBacklog.splice(which, 1) as [Chain];
      const [segment] = chain.segments as [Segment];
      assert(chain.segments.length === 1 && segment.bytes === rxBytes, "a receive buffer is one piece");
      const part = bytes.subarray(at, at + rxBytes);
      this.#rig.bytes.set(part, segment.at);
      used.push({ chain, written: part.length });
    }
    this.#filled.push(used);
    return true;
  }

  /** Gives back up to `count` frames that were delivered; `cut` buffers of the last one are missing still. */
  completeRx(count: number, cut = 0): void {
    const frames = this.#filled.splice(0, count);
    const last = frames.at(-1);
    if (last && cut > 0 && cut < last.length) this.#filled.unshift(last.splice(last.length - cut));
    const all = frames.flat();
    if (!this.#features.inOrder) return this.rx.use(all, false);
    while (all.length > 0) {
      // A batch's buffers are full, but for the last.
      const full = all.findIndex(({ written }) => written < this.#rig.rxBytes);
      const batch = all.splice(0, 1 + this.#random.below(full < 0 ? all.length : full + 1));
      this.rx.use(batch, this.#random.chance(2) || batch.length > 1);
    }
  }

  /** Frames that were delivered, and not given back. */
  get unseen(): number {
    return this.#filled.length;
  }

  /** Wishes for kicks anew: at random, if the wish is one of a descriptor only for one that is still to come. */
  wish(ring: DeviceRing, choice = this.#random.below(3)): void {
    const at: Wish = { at: ring.made + this.#random.below(ring.size) };
    ring.ask(choice === 0 ? "always" : choice === 1 || !this.#features.eventIdx ? "never" : at);
  }
}
