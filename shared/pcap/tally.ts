/** What has gone through a pcapng stream: it is handed on in whole blocks, so that a file is whole wherever it ends. */
import { ENHANCED_PACKET, OPT_END, OPT_ISB_IFDROP, STATISTICS } from "./blocks.ts";

const HEAD_BYTES = 12;
/** Longer blocks the fabric does not write. */
const BLOCK_BYTES_MAX = 1 << 20;

/** Counts frames, and those that the capture lost. */
export class CaptureTally {
  frames = 0;
  readonly #lost = new Map<number, bigint>();
  #rest = new Uint8Array();

  /** Frames that were lost, as far as the stream has told. */
  get lost(): number {
    return Number([...this.#lost.values()].reduce((sum, lost) => sum + lost, 0n));
  }

  /** The stream's whole blocks. */
  stream(): TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>> {
    return new TransformStream({ transform: (bytes, out) => out.enqueue(this.#whole(bytes)) });
  }

  #whole(more: Uint8Array): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.#rest.length + more.length);
    bytes.set(this.#rest);
    bytes.set(more, this.#rest.length);
    const view = new DataView(bytes.buffer);
    let at = 0;
    while (bytes.length - at >= HEAD_BYTES) {
      const length = view.getUint32(at + 4, true);
      if (length < HEAD_BYTES || length > BLOCK_BYTES_MAX) throw new Error(`a block of ${length} bytes in the capture`);
      if (length > bytes.length - at) break;
      this.#count(new DataView(bytes.buffer, at, length));
      at += length;
    }
    this.#rest = bytes.slice(at);
    return bytes.subarray(0, at);
  }

  #count(block: DataView): void {
    const type = block.getUint32(0, true);
    if (type === ENHANCED_PACKET) this.frames++;
    if (type !== STATISTICS) return;
    for (let at = 20; at + 4 <= block.byteLength - 4 && block.getUint16(at, true) !== OPT_END;) {
      if (block.getUint16(at, true) === OPT_ISB_IFDROP) {
        this.#lost.set(block.getUint32(8, true), block.getBigUint64(at + 4, true));
      }
      at += 4 + Math.ceil(block.getUint16(at + 2, true) / 4) * 4;
    }
  }
}
