/**
 * Two guests' drivers in one thread that does nothing else, one sending to the other as Linux does it: with a virtio-net
 * header that asks for a checksum, and for segments where the frame is long. So many frames are on their way at a time that
 * half of the receiver's buffers are free: nothing is lost.
 */
import { monotonicNs } from "../../shared/os/mod.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_BYTES,
} from "../../shared/layout/virtio.ts";
import { bits, FEATURES, type FrontEnd } from "../support/front_end.ts";
import {
  BUFFER_BYTES,
  connectPrepared,
  preparedFrame,
  PreparedReceiver,
  PreparedSender,
  QUEUE_SIZE,
} from "./prepared_rings.ts";

/** How long nothing may come while frames are on their way. */
const STALL_NS = 3e9;

const OFFLOADS = bits(
  ...[VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4],
  VIRTIO_NET_F_MRG_RXBUF,
);

/** What has arrived. */
export interface Arrived {
  frames: number;
  /** Until the last of them. */
  seconds: number;
}

/** A guest on a VF, and the VF's address. */
export interface PathEnd {
  front: FrontEnd;
  mac: string;
}

/** Connects a guest that `DataPathDriver` can drive. */
export function connectGuest(socket: string): Promise<FrontEnd> {
  return connectPrepared(socket, FEATURES | OFFLOADS);
}

/** A sender and a receiver. */
export class DataPathDriver {
  readonly #sender: PreparedSender;
  readonly #receiver: PreparedReceiver;
  readonly #macs: { from: string; to: string };
  /** Frames that may be on their way at a time. */
  #window = 0;
  #isLong = false;

  constructor(from: PathEnd, to: PathEnd) {
    this.#sender = new PreparedSender(from.front);
    this.#receiver = new PreparedReceiver(to.front);
    this.#macs = { from: from.mac, to: to.mac };
  }

  /** Has all frames from now on be of `bytes` bytes, without FCS. */
  prepare(bytes: number): void {
    const { frame, header } = preparedFrame(bytes, this.#macs);
    this.#sender.prepare(frame, header);
    const buffers = Math.ceil((VIRTIO_NET_HDR_BYTES + bytes) / BUFFER_BYTES);
    this.#isLong = buffers > 1;
    this.#window = Math.floor(QUEUE_SIZE / 2 / buffers);
  }

  /** Sends for some seconds, and takes what comes until all is there. */
  run(seconds: number): Arrived {
    const start = monotonicNs();
    let [sent, frames] = [0, 0];
    let last = start;
    for (let now = start; now - start < seconds * 1e9 || frames < sent; now = monotonicNs()) {
      const due = Math.min(this.#window - (sent - frames), this.#sender.free);
      if (now - start < seconds * 1e9 && due > 0) {
        sent += due;
        this.#sender.send(due);
      }
      this.#sender.kickIfWanted();
      const came = this.#receiver.take(this.#isLong);
      frames += came;
      if (came > 0) last = now;
      if (now - last > STALL_NS) throw new Error(`${sent} frames were sent and ${frames} arrived`);
    }
    return { frames, seconds: (last - start) / 1e9 };
  }
}
