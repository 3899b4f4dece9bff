/**
 * A driver that sends frames at a rate and another that sleeps between interrupts, in one thread that does nothing else:
 * what is measured is the engine's part. All descriptors are written once; a frame is eight bytes of time, and an index.
 */
import { monotonicNs, signalEventFd } from "../../shared/os/mod.ts";
import { VIRTIO_NET_HDR_BYTES, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import type { FrontEnd } from "../support/front_end.ts";
import { frame, type SplitDriver } from "../support/mock_guest.ts";

const FRAME_BYTES = 64;
const BUFFER_BYTES = 256;
/** Behind the Ethernet header, on eight bytes. */
const STAMP = VIRTIO_NET_HDR_BYTES + 20;
/** Latencies up to ten milliseconds, by the tenth of a microsecond. */
const SLOTS = 100_000;
const SLOT_NS = 100;
/** How long frames may be on their way when the last one has been sent. */
const SETTLE_NS = 50_000_000;

/** What came of a run. */
export interface DriverRun {
  received: number;
  p50Us: number;
  p90Us: number;
  p99Us: number;
}

/** Two front-ends and their prepared rings. */
export class InterruptDriver {
  readonly #sender: FrontEnd;
  readonly #receiver: FrontEnd;
  readonly #tx: SplitDriver;
  readonly #rx: SplitDriver;
  readonly #latencies = new Uint32Array(SLOTS);
  #sentIdx = 0;
  #usedIdx = 0;

  constructor(sender: FrontEnd, receiver: FrontEnd, macs: { from: string; to: string }) {
    [this.#sender, this.#receiver] = [sender, receiver];
    [this.#tx, this.#rx] = [sender.guest.tx(), receiver.guest.rx()];
    this.#tx.noInterrupt = true;
    const one = frame({ dst: macs.to, src: macs.from, bytes: FRAME_BYTES });
    for (let slot = 0; slot < this.#tx.size; slot++) {
      const at = this.#place(slot);
      const len = sender.guest.writeFrame(at, one);
      this.#tx.writeDescriptor(slot, { addr: sender.guest.iova(at), len });
      this.#tx.offer(slot);
      this.#rx.writeDescriptor(slot, {
        addr: receiver.guest.iova(this.#place(slot)),
        len: BUFFER_BYTES,
        flags: VIRTQ_DESC_F_WRITE,
      });
      this.#rx.offer(slot);
    }
    this.#rx.publish(this.#rx.size);
    receiver.kick(0);
  }

  #place(slot: number): number {
    return this.#sender.guest.heap + slot * BUFFER_BYTES;
  }

  /** Sends `rate` frames a second for some seconds, evenly; nothing else happens in this thread meanwhile. */
  run(rate: number, seconds: number): DriverRun {
    this.#latencies.fill(0);
    const { view } = this.#sender.memory;
    const tx = this.#tx;
    const start = monotonicNs();
    const frames = rate * seconds;
    let [sent, received] = [0, 0];
    let kicked = this.#sentIdx;
    for (let now = start; sent < frames || received < sent; now = monotonicNs()) {
      if (now - start > seconds * 1e9 + SETTLE_NS) break;
      const room = tx.size - ((this.#sentIdx - tx.usedIdx) & 0xffff);
      const due = Math.min(Math.min(frames, Math.floor((now - start) * rate / 1e9)) - sent, room);
      for (let i = 0; i < due; i++) {
        view.setFloat64(this.#place((this.#sentIdx + i) % tx.size) + STAMP, now, true);
      }
      if (due > 0) {
        sent += due;
        this.#sentIdx = (this.#sentIdx + due) & 0xffff;
        tx.publish(this.#sentIdx);
      }
      // Again and again: without a barrier, what is read now may be older than the index that was written.
      if (kicked !== this.#sentIdx && (view.getUint16(tx.used, true) & 1) === 0) {
        kicked = this.#sentIdx;
        signalEventFd(this.#sender.kicks[1]?.number ?? -1);
      }
      if (this.#receiver.takeCalls(0) === 0n) continue;
      received += this.#serve(monotonicNs());
    }
    return { received, p50Us: this.#percentile(0.5), p90Us: this.#percentile(0.9), p99Us: this.#percentile(0.99) };
  }

  /** Takes what has come, and gives the buffers back. */
  #serve(now: number): number {
    const { view } = this.#receiver.memory;
    const rx = this.#rx;
    const came = (rx.usedIdx - this.#usedIdx) & 0xffff;
    for (let i = 0; i < came; i++) {
      const slot = view.getUint32(rx.used + 4 + ((this.#usedIdx + i) % rx.size) * 8, true);
      const waited = now - view.getFloat64(this.#place(slot) + STAMP, true);
      const at = Math.min(SLOTS - 1, Math.max(0, Math.floor(waited / SLOT_NS)));
      this.#latencies[at] = (this.#latencies[at] ?? 0) + 1;
    }
    this.#usedIdx = (this.#usedIdx + came) & 0xffff;
    rx.publish((this.#usedIdx + rx.size) & 0xffff);
    return came;
  }

  /** The latency in µs below which this share of the frames lies. */
  #percentile(share: number): number {
    let left = share * this.#latencies.reduce((sum, count) => sum + count, 0);
    const slot = this.#latencies.findIndex((count) => (left -= count) < 0);
    return slot * SLOT_NS / 1000;
  }
}
