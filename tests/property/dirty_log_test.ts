/**
 * The dirty log against the memory itself: whatever is sent, into buffers of any shape, in every ring format and on every
 * data path, each page that was written is logged when its driver is told, and no page that was not. The log is read and
 * cleared at any moment, as whoever moves the guest does.
 */
import fc from "fast-check";
import { assert } from "@std/assert";
import { QUEUE_F_EVENT_IDX, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import type { Directness } from "../../services/vhost/pair_layout.ts";
import { DirectRig } from "../support/direct_rig.ts";
import { EngineRig, rigMac, type VirtioRigGuest, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import type { VirtqueueName } from "../support/formats.ts";
import { LogWatch, payload } from "../support/log_watch.ts";
import { frame } from "../support/mock_guest.ts";

/** A ring of so many takes more than a page, so that its pages are told apart. */
const OPTIONS = { queueSize: 512, bufferBytes: 3072 };
const RUNS = 8;
/** Buffers that there are at first. */
const FIRST = 40;
/** Buffers that lie across pages, and frames that end before a page does, or behind it. */
const SHAPES = [[3072], [2048], [1530], [1024], [12, 3060], [700, 1500], [64], [100, 1, 2900]];
const PAYLOAD_BYTES_MAX = 3000;

interface Step {
  do: "send" | "post" | "run" | "look" | "cool";
  bytes: number;
  many: number;
  shape: number[];
  indirect: boolean;
  /** A tag that the sender puts in, 0 for none. */
  tag: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  do: fc.constantFrom("send", "send", "post", "post", "run", "run", "look", "cool"),
  bytes: fc.oneof(fc.constantFrom(46, 1010, 1500), fc.integer({ min: 46, max: PAYLOAD_BYTES_MAX })),
  many: fc.constantFrom(1, 1, 2, 40),
  shape: fc.constantFrom(...SHAPES),
  indirect: fc.boolean(),
  tag: fc.constantFrom(0, 0, 0, 5),
});
const steps = fc.array(step, { minLength: 10, maxLength: 60, size: "max" });

/** Guest 0 sends, guest 1 receives; both are logged. */
class LoggedWay {
  readonly #watches: [LogWatch, LogWatch];
  readonly #way: Way;
  #serial = 0;

  constructor(way: Way) {
    this.#way = way;
    this.#watches = [new LogWatch(way.rig, way.guests[0], 0), new LogWatch(way.rig, way.guests[1], 1)];
    this.#begin();
  }

  take({ do: what, bytes, many, shape, indirect, tag }: Step): void {
    const [sender, receiver] = this.#way.guests;
    for (let i = 0; i < many && what === "send" && sender.room() >= 4; i++) {
      sender.sendPieces(this.#frame(bytes, tag), [], { indirect });
    }
    for (let i = 0; i < many && what === "post" && receiver.rx().free >= shape.length; i++) {
      receiver.post(shape, { indirect });
    }
    if (what === "run") this.#during(() => this.#way.run(10));
    if (what === "look") this.look();
    if (what === "cool") this.cool();
  }

  #frame(bytes: number, tag: number): Uint8Array {
    const tags = tag === 0 ? [] : [{ vid: tag }];
    return frame({ dst: rigMac(1), src: rigMac(0), tags, payload: payload(this.#serial++, bytes) });
  }

  #during(work: () => void): void {
    const [sender, receiver] = this.#watches;
    sender.during(() => receiver.during(work));
  }

  /** The worker is about to sleep: drivers are asked for kicks. */
  cool(): void {
    this.look();
    this.#during(() => void this.#way.rig.wasm.coolAll());
    this.look();
  }

  /** Holds the logs against the memory, and takes what has come. */
  look(): void {
    this.#during(() => {
      this.#way.run(20);
      this.#way.settle();
    });
    for (const watch of this.#watches) watch.check();
    this.#way.guests[1].receive();
    this.#watches[1].wipe();
    this.#begin();
  }

  /** Posts buffers, and has frames come: those that come before there are buffers on the way are copied on direct paths. */
  #begin(): void {
    const [sender, receiver] = this.#way.guests;
    for (let i = 0; i < FIRST && receiver.rx().free > 0; i++) receiver.post([2048]);
    for (let round = 0; round < 2; round++) {
      if (sender.room() > 0) sender.sendPieces(this.#frame(1000, 0), []);
      this.#during(() => this.#way.run(10));
    }
  }
}

/** Two guests, and how what goes from one to the other is driven. */
interface Way {
  rig: EngineRig;
  guests: readonly [VirtioRigGuest, VirtioRigGuest];
  run(passes: number): void;
  /** Has everything given back that is outstanding. */
  settle(): void;
  /** Frames that the path brought as it is meant to. */
  arrived(): number;
}

/** Past the switch: both guests' rings are the NIC's. */
function switched(format: VirtqueueName, flags: number): Way {
  const policy = { trunk: [5] };
  const rig = new EngineRig(2, { 0: policy, 1: policy });
  const [from, to] = [0, 1].map((vf) => rig.attachVirtqueues(format, vf, OPTIONS, flags)) as Pair;
  return {
    rig,
    guests: [from, to],
    run: (passes) => rig.run(passes),
    settle: () => {},
    arrived: () => rig.counters(1).rx_frames ?? 0,
  };
}

/** In emulated mode. */
function emulated(directness: Directness, format: VirtqueueName, flags: number): Way {
  const world = new DirectRig(2);
  const [from, to] = [0, 1].map(() => world.attach(directness, format, OPTIONS, flags));
  const settle = () => {
    from?.recallSent();
    to?.recallReceived(() => world.rig.wasm.run(world.rig.nowNs, 1));
  };
  return {
    rig: world.rig,
    guests: [from?.guest, to?.guest] as Pair,
    run: (passes) => world.run(passes),
    settle: directness === "copy" ? () => {} : settle,
    arrived: () => directness === "copy" ? world.rig.counters(1).rx_frames ?? 0 : to?.counters.received ?? 0,
  };
}

type Pair = [VirtioRigGuest, VirtioRigGuest];

const PATHS: Record<string, (format: VirtqueueName, flags: number) => Way> = {
  "the NIC's rings": switched,
  ...Object.fromEntries((["copy", "zerocopy", "headersplit"] as const).map((directness) => [
    `emulated, ${directness}`,
    (format: VirtqueueName, flags: number) => emulated(directness, format, flags),
  ])),
};

for (const [path, way] of Object.entries(PATHS)) {
  for (const format of VIRTQUEUE_FORMATS) {
    Deno.test(`${path}, ${format}: each page that is written is logged, and no other`, () => {
      let arrived = 0;
      fc.assert(
        fc.property(steps, fc.subarray([QUEUE_F_MRG_RXBUF, QUEUE_F_EVENT_IDX]), (steps, chosen) => {
          const made = way(format, chosen.reduce((all, flag) => all | flag, QUEUE_F_INDIRECT));
          const logged = new LoggedWay(made);
          for (const one of steps) logged.take(one);
          logged.look();
          arrived += made.arrived();
        }),
        { numRuns: RUNS },
      );
      assert(arrived >= RUNS, `${arrived} frames came on this path`);
    });
  }
}
