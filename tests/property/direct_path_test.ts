/**
 * The direct paths under anything that is lawful: frames of any length in any pieces, receive buffers of any shape, and
 * recalls at any moment. Each frame arrives once, in order, and each buffer comes back.
 */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { DIRECT_HOST_BYTES, QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { DirectRig } from "../support/direct_rig.ts";
import { rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const FLAGS = QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF;
const OPTIONS = { bufferBytes: 16384, queueSize: 64 };
const HEADER_BYTES = 12;
/** A frame of this length takes one slot, whatever is in it. */
const HOST_FRAME_BYTES = DIRECT_HOST_BYTES - HEADER_BYTES;

type Step =
  | { do: "send"; bytes: number; cuts: number[]; indirect: boolean }
  | { do: "post"; sizes: number[]; indirect: boolean }
  | { do: "run"; passes: number }
  | { do: "recall sent" | "recall received" };

const bytes = fc.oneof(
  fc.integer({ min: 60, max: 200 }),
  fc.constantFrom(1514, 1518, 1519, 1530, 3000),
  fc.integer({ min: 60, max: 9014 }),
);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      bytes,
      cuts: fc.oneof(
        { weight: 3, arbitrary: fc.constant<number[]>([]) },
        fc.array(fc.integer({ min: 1, max: 9000 }), { maxLength: 8 }) as fc.Arbitrary<number[]>,
        fc.constant<number[]>([HEADER_BYTES]),
      ),
      indirect: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("post" as const),
      sizes: fc.oneof(
        { weight: 4, arbitrary: fc.constantFrom<number[]>([2048], [1530], [4096]) },
        fc.constantFrom<number[]>([1529], [64], [HEADER_BYTES, 2000], [700, 900, 1000], [9100]),
      ),
      indirect: fc.boolean(),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant("run" as const), passes: fc.constantFrom(10, 20) }),
  },
  { weight: 1, arbitrary: fc.constantFrom({ do: "recall sent" as const }, { do: "recall received" as const }) },
);

/** One-way traffic from one direct guest to another. */
class OneWay {
  readonly #world = new DirectRig(2);
  readonly #from;
  readonly #to;
  readonly #sent: Uint8Array[] = [];
  #arrived = 0;

  constructor(directness: "zerocopy" | "headersplit", format: typeof VIRTQUEUE_FORMATS[number]) {
    this.#from = this.#world.attach(directness, format, OPTIONS, FLAGS);
    this.#to = this.#world.attach(directness, format, OPTIONS, FLAGS);
  }

  take(step: Step): void {
    switch (step.do) {
      case "send":
        return this.#send(step);
      case "post":
        if (this.#to.guest.rx().free >= step.sizes.length) this.#to.guest.post(step.sizes, step);
        return;
      case "run":
        this.#world.run(step.passes);
        return this.#receive();
      case "recall sent":
        return this.#from.recallSent();
      case "recall received":
        return this.#recallReceived();
    }
  }

  #send({ bytes, cuts, indirect }: Extract<Step, { do: "send" }>): void {
    if (this.#from.guest.room() < cuts.length + 1) return;
    const made = frame({ dst: rigMac(1), src: rigMac(0), bytes });
    new DataView(made.buffer).setUint32(14, this.#sent.length);
    this.#sent.push(made);
    this.#from.guest.sendPieces(made, cuts, { indirect });
  }

  /** One frame is dropped by it: one that is in some of the guest's buffers, and waits for more of them. */
  #recallReceived(): void {
    if (this.#sent.slice(this.#arrived).some(({ byteLength }) => byteLength > HOST_FRAME_BYTES)) return;
    this.#to.recallReceived(() => this.#world.rig.wasm.run(this.#world.rig.nowNs, 1));
  }

  #receive(): void {
    for (const got of this.#to.guest.receive()) {
      assertEquals(got, this.#sent[this.#arrived++], `frame ${this.#arrived}`);
    }
  }

  /** Everything arrives in the end. */
  end(): void {
    for (let tries = 0; this.#arrived < this.#sent.length; tries++) {
      assert(tries < 1000, `${this.#arrived} of ${this.#sent.length} arrived`);
      while (this.#to.guest.rx().free > 0) this.#to.guest.post([2048]);
      this.#world.run(20);
      this.#receive();
    }
    this.#from.recallSent();
    this.#to.recallReceived();
    assertEquals(this.#from.guest.room(), OPTIONS.queueSize, "all that was sent has come back");
    assertEquals([this.#from.error, this.#to.error], [0, 0]);
    this.#world.rig.checkCanaries();
  }
}

for (const directness of ["zerocopy", "headersplit"] as const) {
  for (const format of VIRTQUEUE_FORMATS) {
    Deno.test(`${directness}, ${format}: whatever is sent and posted arrives once, in order, with recalls at any moment`, () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 120, size: "max" }), (steps) => {
          const way = new OneWay(directness, format);
          for (const one of steps) way.take(one);
          way.end();
        }),
        { numRuns: 60 },
      );
    });
  }
}
