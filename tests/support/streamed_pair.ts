/** Two front-ends on a fabric's VFs, and a stream of numbered frames from the first to the second. */
import { assertEquals } from "@std/assert";
import type { TestFabric } from "./fabric.ts";
import type { VirtqueueName } from "./formats.ts";
import { FrontEnd, type FrontEndGuest } from "./front_end.ts";
import { NumberedStream } from "./numbered_stream.ts";

/** What of a pair may be chosen. */
interface PairOptions {
  queueSize?: number;
  /** When a stream gives up what is on its way (`NumberedStream`). */
  lostMs?: number;
}

/** The front-ends of VF 0 and VF 1, and their stream. */
export class StreamedPair implements AsyncDisposable {
  readonly a: FrontEnd<FrontEndGuest>;
  readonly b: FrontEnd<FrontEndGuest>;
  readonly stream: NumberedStream;
  readonly #fabric: TestFabric;

  private constructor(fabric: TestFabric, format: VirtqueueName, { queueSize, lostMs }: PairOptions) {
    // Packed rings need not be a power of two long.
    const options = { queueSize: queueSize ?? (format === "split" ? 64 : 50) };
    this.#fabric = fabric;
    this.a = FrontEnd.connectAs(format, fabric.vf(0).socket, options);
    this.b = FrontEnd.connectAs(format, fabric.vf(1).socket, options);
    const ends = { dst: fabric.vf(1).mac, src: fabric.vf(0).mac };
    this.stream = new NumberedStream(this.a, this.b, { ...ends, ...(lostMs === undefined ? {} : { lostMs }) });
  }

  /** Attaches both; their rings run when this answers. */
  static async attach(fabric: TestFabric, format: VirtqueueName = "split", options: PairOptions = {}) {
    const pair = new StreamedPair(fabric, format, options);
    for (const front of [pair.a, pair.b]) await front.start();
    return pair;
  }

  /** Ends the stream: all that was sent has come, once and in order. */
  async endWhole(): Promise<void> {
    const { stream } = this;
    await stream.end();
    const { errors } = this.#fabric.process;
    assertEquals([stream.received, stream.lost, stream.repeated], [stream.sent, 0, 0], errors);
  }

  /** All transmit buffers are the driver's; all receive buffers are posted or the driver's. */
  checkBuffers(): void {
    const [sender, receiver] = [this.a.guest, this.b.guest];
    assertEquals(sender.room(), sender.options.queueSize);
    assertEquals(receiver.rx().free + receiver.posted(), receiver.options.queueSize);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.a[Symbol.asyncDispose]();
    await this.b[Symbol.asyncDispose]();
  }
}
