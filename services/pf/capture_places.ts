/**
 * How many captures whoever has a VF's token may have open: two of its VF, and with all VFs' tokens together six of the
 * eight that the NIC has, so that an operator finds one.
 */
import { ApiError } from "../../shared/api/mod.ts";

/** Captures of one VF that its tokens may have open. */
const OF_ONE_VF_MAX = 2;
/** Captures that all VFs' tokens together may have open; the rest of the NIC's eight are operators'. */
const OF_ALL_VFS_MAX = 6;
/** A place is free again so long after its capture has ended: by then the NIC has seen the end too. */
const COOL_MS = 1000;

/** What the metrics say of them. */
export interface CapturesTold {
  /** Captures that a VF's tokens have open, by VF. */
  ofVfs: [number, number][];
  /** Refusals, by reason. */
  refused: [string, number][];
}

/** Who has which places. */
export class CapturePlaces {
  readonly #open = new Map<number, number>();
  readonly #refused = new Map([["vf-captures", 0], ["vfs-captures", 0]]);
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();

  get told(): CapturesTold {
    return { ofVfs: [...this.#open], refused: [...this.#refused] };
  }

  /**
   * Takes a place for VF `vf`'s token; answers what gives it back, at once if nothing was opened. Throws ApiError if
   * there is none.
   */
  take(vf: number): (wasOpened: boolean) => void {
    const own = this.#open.get(vf) ?? 0;
    if (own >= OF_ONE_VF_MAX) {
      throw this.#refusal(429, "vf-captures", `vf ${vf}'s tokens have ${own} captures open: end one first`);
    }
    const all = [...this.#open.values()].reduce((sum, count) => sum + count, 0);
    if (all >= OF_ALL_VFS_MAX) {
      const detail =
        `VFs' tokens have ${all} captures open, which is all that they may: try again when one has ended, ` +
        "or ask an operator for the capture";
      throw this.#refusal(503, "vfs-captures", detail);
    }
    this.#open.set(vf, own + 1);
    let isOpen = true;
    return (wasOpened) => {
      if (!isOpen) return;
      isOpen = false;
      if (!wasOpened) return this.#giveBack(vf);
      const timer = setTimeout(() => {
        this.#timers.delete(timer);
        this.#giveBack(vf);
      }, COOL_MS);
      this.#timers.add(timer);
    };
  }

  #giveBack(vf: number): void {
    const left = (this.#open.get(vf) ?? 0) - 1;
    if (left > 0) this.#open.set(vf, left);
    else this.#open.delete(vf);
  }

  #refusal(status: 429 | 503, reason: string, detail: string): ApiError {
    this.#refused.set(reason, (this.#refused.get(reason) ?? 0) + 1);
    return new ApiError(status, detail, undefined, reason);
  }

  close(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }
}

/** A stream that calls `onEnd` once it is over, however that comes about. */
export function endingWith(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  onEnd: () => void,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = stream.getReader();
  return new ReadableStream<Uint8Array<ArrayBuffer>>({
    async pull(out) {
      try {
        const { done, value } = await reader.read();
        if (!done) return out.enqueue(value);
        onEnd();
        out.close();
      } catch (error) {
        onEnd();
        throw error;
      }
    },
    cancel(reason) {
      onEnd();
      return reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}
