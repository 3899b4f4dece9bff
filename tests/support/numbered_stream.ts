/**
 * Numbered frames from one front-end's guest to another's, as fast as a test's loop goes: each must come once and in
 * order. What a crash may do to frames (lose them, or repeat the last ones) is counted; what it may not do to buffers
 * (lose them, or return them twice) the drivers themselves find out.
 */
import type { FrontEnd, FrontEndGuest } from "./front_end.ts";
import { frame } from "./mock_guest.ts";
import { until } from "./wait.ts";

const BURST = 8;
/** Frames whose buffers the device may have at a time. */
const IN_FLIGHT_MAX = 16;
/** Share of a ring's buffers that are posted; so many frames may be on their way, and none is lost for want of one. */
const POSTED = 0.75;
/** Frames that have not come for so long have been lost with whoever had them. */
const LOST_MS = 2000;
const NUMBER_AT = 14;
const ETHER_TYPE = 0x88b6;

/** Where a stream goes, and when its frames are given up. */
interface StreamOptions {
  dst: string;
  src: string;
  /** Nothing of what is on its way is waited for any more when nothing has come for so long. */
  lostMs?: number;
}

/** One direction. */
export class NumberedStream {
  readonly #from: FrontEnd<FrontEndGuest>;
  readonly #to: FrontEnd<FrontEndGuest>;
  readonly #addresses: { dst: string; src: string };
  readonly #lostMs: number;
  sent = 0;
  received = 0;
  /** Frames that came again, and frames behind which a later one has come. */
  repeated = 0;
  lost = 0;
  #next = 0;
  /** When something came last, and the number before which nothing is waited for. */
  #progressMs = performance.now();
  #given = 0;

  constructor(
    from: FrontEnd<FrontEndGuest>,
    to: FrontEnd<FrontEndGuest>,
    { lostMs = LOST_MS, ...addresses }: StreamOptions,
  ) {
    this.#from = from;
    this.#to = to;
    this.#addresses = addresses;
    this.#lostMs = lostMs;
  }

  /** Sends some, if what was sent before has been taken, and takes what has come. */
  step(frames = BURST): void {
    this.take();
    const { guest } = this.#from;
    if (performance.now() - this.#progressMs > this.#lostMs) {
      this.#given = this.sent;
      this.#progressMs = performance.now();
    }
    const onTheirWay = this.sent - Math.max(this.#next, this.#given);
    const count = Math.min(frames, guest.room(), IN_FLIGHT_MAX - guest.unsent(), this.#buffers - onTheirWay);
    if (count <= 0) return this.#from.kickIfWanted();
    guest.send(Array.from({ length: count }, () => {
      const payload = new Uint8Array(50);
      new DataView(payload.buffer).setUint32(0, this.sent++);
      return frame({ ...this.#addresses, etherType: ETHER_TYPE, payload });
    }));
    this.#from.kickIfWanted();
  }

  get #buffers(): number {
    return Math.floor(this.#to.guest.options.queueSize * POSTED);
  }

  /** Takes what has come, and has room for more. */
  take(): void {
    const { guest } = this.#to;
    // Whatever comes meanwhile has its buffers still: they are not there to be offered again.
    const posted = guest.posted();
    for (const bytes of guest.receive()) {
      if (((bytes[12] ?? 0) << 8 | (bytes[13] ?? 0)) !== ETHER_TYPE) continue;
      const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(NUMBER_AT);
      this.received++;
      if (number < this.#next) this.repeated++;
      else this.lost += number - this.#next;
      this.#next = Math.max(this.#next, number + 1);
      this.#progressMs = performance.now();
    }
    guest.fill(this.#buffers - posted);
  }

  /** Steps while `condition` does not hold. */
  async during(what: string, condition: () => Promise<boolean> | boolean, deadlineMs = 20_000): Promise<void> {
    let isOver = false;
    const over = until(what, async () => isOver = await condition(), deadlineMs).finally(() => isOver = true);
    // It is waited for below; until then nobody is to call it unhandled.
    over.catch(() => {});
    while (!isOver) {
      this.step();
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await over;
  }

  /** Steps until so many frames more have come. */
  async more(frames: number): Promise<void> {
    const goal = this.received + frames;
    await this.during(`${frames} more frames`, () => this.received >= goal);
  }

  /** Sends no more, and waits until everything that was sent has come. */
  async end(): Promise<void> {
    await until(`frame ${this.sent - 1}; ${this.lost} were lost, ${this.received} came`, () => {
      this.take();
      return this.#next === this.sent && this.#from.guest.unsent() === 0;
    });
    this.#from.guest.room();
  }
}
