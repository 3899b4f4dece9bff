/**
 * One NIC with guests for one row of the benchmark, over the test rig of any checkout of this project: the rig and its
 * mock guests are imported from that checkout's folder, so that two versions of the engine run under the same load.
 */
import type { VfPolicy } from "../../../shared/api/mod.ts";
import type * as Engine from "../../../shared/engine/mod.ts";
import type * as Advanced from "../../support/advanced_guest.ts";
import type * as Rig from "../../support/engine_rig.ts";
import type * as Mock from "../../support/mock_guest.ts";
import { type PackedGuest, packedRx, packedTx } from "./packed_port.ts";
import { advancedRx, advancedTx, type Buffers, type Port, splitRx, splitTx } from "./ports.ts";

/** Where checkouts keep the constants that the rows need. */
const LAYOUTS = ["shared/layout/nic.ts", "shared/engine/layout.ts", "shared/layout/queue.ts"];

/** What a checkout brings. */
export interface Kit {
  rig: typeof Rig;
  mock: typeof Mock;
  advanced: typeof Advanced;
  engine: typeof Engine;
  constant(name: string): number;
  /** Whether its engine knows this ring format. */
  has(format: Format): boolean;
}

/** Ring formats of guests. */
export type Format = "split" | "split in-order" | "packed" | "packed in-order" | "advanced";

/** A rig that may be able to attach guests with packed rings, and may say which formats the engine knows. */
type PackedRig = Rig.EngineRig & {
  attachPacked?(pool: number, options: Partial<Mock.GuestOptions>, flags: number): Rig.RigGuest & PackedGuest;
};
interface Formats {
  FORMATS?: readonly string[];
}
/** What every engine knows. */
const OLD_FORMATS: readonly string[] = ["split", "advanced"] satisfies Format[];

/** Loads the test rig of the checkout at `root`. */
export async function loadKit(root: URL): Promise<Kit> {
  const load = (path: string) => import(new URL(path, root).href);
  const constants: Record<string, number> = {};
  for (const path of LAYOUTS) Object.assign(constants, await load(path).catch(() => ({})));
  const rig: typeof Rig = await load("tests/support/engine_rig.ts");
  return {
    rig,
    mock: await load("tests/support/mock_guest.ts"),
    advanced: await load("tests/support/advanced_guest.ts"),
    engine: await load("shared/engine/mod.ts"),
    constant(name) {
      const value = constants[name];
      if (value === undefined) throw new Error(`Cannot find ${name} in ${root.pathname}: add its file to LAYOUTS`);
      return value;
    },
    has: (format) => ((rig as Formats).FORMATS ?? OLD_FORMATS).includes(format),
  };
}

/** Frames that a big ring holds. */
export const QUEUE = 1024;
/** Buffers of small frames lie four cache lines apart, so that all of a row's stay in the second-level cache. */
export const SMALL: Buffers = { strideBytes: 256, slots: QUEUE };
export const LARGE: Buffers = { strideBytes: 1600, slots: 256 };

/** How a guest of a row is made. */
export interface Seat {
  format?: Format;
  queueSize?: number;
  buffers?: Buffers;
  queuePairs?: number;
  flags?: number;
}

/** A NIC, its guests, and the rings that the benchmark refills. */
export class World {
  readonly kit: Kit;
  readonly rig: Rig.EngineRig;
  readonly ports: Port[] = [];
  readonly senders: Port[] = [];
  /** The engine's clock, in ns: it stands still while the engine does not run. */
  ranNs = 1e9;

  constructor(kit: Kit, vfs: number, policies: Record<number, Partial<VfPolicy>> = {}) {
    this.kit = kit;
    this.rig = new kit.rig.EngineRig(vfs, policies);
  }

  /** MAC of VF `vf`. */
  mac(vf: number): string {
    return this.kit.rig.rigMac(vf);
  }

  /** Frames of one sender to each of these addresses in turn. */
  frames(src: string, dsts: readonly string[], bytes = 64, vid?: number): Uint8Array[] {
    const tags = vid === undefined ? [] : [{ vid }];
    return dsts.map((dst) => this.kit.mock.frame({ dst, src, bytes, tags }));
  }

  /** Attaches a guest that sends these frames again and again. */
  sender(pool: number, frames: readonly Uint8Array[], seat: Seat = {}): void {
    const { buffers = SMALL, queuePairs = 1 } = seat;
    const guest = this.#attach(pool, seat);
    for (let pair = 0; pair < queuePairs; pair++) this.senders.push(this.#txPort(guest, frames, buffers, pair));
  }

  #txPort(guest: Rig.AnyRigGuest, frames: readonly Uint8Array[], buffers: Buffers, pair: number): Port {
    const { mock, advanced } = this.kit;
    if (guest instanceof advanced.AdvancedGuest) return advancedTx(guest, frames, buffers, advanced.txMeta);
    if (guest instanceof mock.MockGuest) return splitTx(guest, frames, buffers, pair);
    return packedTx(guest as PackedGuest, frames, buffers, pair);
  }

  /** Attaches a guest that receives. */
  receiver(pool: number, seat: Seat = {}): Rig.AnyRigGuest {
    const { mock, advanced } = this.kit;
    const { buffers = SMALL } = seat;
    const guest = this.#attach(pool, seat);
    if (guest instanceof advanced.AdvancedGuest) this.ports.push(advancedRx(guest, buffers));
    else if (guest instanceof mock.MockGuest) this.ports.push(splitRx(guest, buffers));
    else this.ports.push(packedRx(guest as PackedGuest, buffers));
    return guest;
  }

  #attach(pool: number, seat: Seat): Rig.AnyRigGuest {
    const { format = "split", queueSize = QUEUE, queuePairs = 1, buffers = SMALL } = seat;
    const options = { queueSize, queuePairs, bufferBytes: buffers.strideBytes };
    if (format === "advanced") return this.rig.attachAdvanced(pool, options);
    const flags = (seat.flags ?? this.kit.constant("QUEUE_F_INDIRECT")) |
      (format.endsWith("in-order") ? this.kit.constant("QUEUE_F_IN_ORDER") : 0);
    if (format.startsWith("split")) return this.rig.attach(pool, options, flags);
    const guest = (this.rig as PackedRig).attachPacked?.(pool, options, flags);
    if (!guest) throw new Error("Cannot attach a guest with packed rings: the rig has no attachPacked");
    return guest;
  }

  /** Refills every ring. */
  refill(): void {
    for (const port of this.ports) port.refill();
    for (const port of this.senders) port.refill();
  }

  /** Whether the engine has taken every frame. */
  drained(): boolean {
    return this.senders.every((port) => port.drained());
  }

  /** One counter of a pool. */
  counter(pool: number, name: string): number {
    return this.rig.counters(pool)[name] ?? 0;
  }

  /** Frames that all pools together have sent and received. */
  totals(): { sent: number; received: number } {
    let [sent, received] = [0, 0];
    for (const pool of this.rig.guests.keys()) {
      sent += this.counter(pool, "tx_frames");
      received += this.counter(pool, "rx_frames");
    }
    return { sent, received };
  }
}
