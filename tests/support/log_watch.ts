/**
 * A guest whose dirty log a test reads: what its device has written is told by the memory itself, and the log is held
 * against it. Receive buffers are full of a byte that no frame has, so each byte that was written is known, and rings are
 * compared with what they were.
 */
import { assert, assertEquals } from "@std/assert";
import { LOG_PAGE_SHIFT, Q_FLAGS, QUEUE_F_LOG, WINDOWS } from "../../shared/layout/nic.ts";
import { VIRTQ_EVENT_BYTES } from "../../shared/layout/virtio.ts";
import type { Arena } from "../../shared/os/mod.ts";
import { DirtyLog } from "../../shared/engine/dirty_log.ts";
import type { EngineRig, VirtioRigGuest } from "./engine_rig.ts";
import { PackedGuest } from "./packed_guest.ts";
import { sameBytes } from "./same_bytes.ts";
import { madeBytes } from "./made_bytes.ts";

/** No byte of frames that `payload` has made, nor of a virtio-net header, is this one. */
const UNWRITTEN = 0xee;
const PAGE_BYTES = 1 << LOG_PAGE_SHIFT;
const UNWRITTEN_PAGE = new Uint8Array(PAGE_BYTES).fill(UNWRITTEN);
/** Logs lie far above the guests' memory. */
const LOGS_AT = WINDOWS + 768 * 1024 ** 2;
const LOG_STRIDE = 1024 ** 2;
/** How far beyond its memory a guest's used rings are logged: their log address is a front-end's to choose. */
const USED_STRIDE = 0x10000;

/** A payload of its own, without the byte that marks unwritten memory. */
export function payload(serial: number, bytes: number): Uint8Array {
  return madeBytes(bytes, (i) => (serial * 7 + i) & 0x7f);
}

/** A range of addresses. */
interface Range {
  iova: bigint;
  bytes: number;
}

/** A part of a ring that the device writes: where it lies, and where it is logged. */
interface RingPart {
  at: number;
  bytes: number;
  logged: bigint;
}

/** A guest and its dirty log. */
export class LogWatch {
  readonly guest: VirtioRigGuest;
  readonly #log: Uint8Array;
  readonly #parts: RingPart[];
  /** Pages, as they are logged, of which the device has changed a byte of a ring since the last `check`. */
  readonly #changed = new Set<bigint>();

  /** Turns the log of `guest` on. `index`: which of the logs is its. */
  constructor(rig: EngineRig, guest: VirtioRigGuest, index: number) {
    this.guest = guest;
    const { iova, bytes } = guest.options;
    const end = Number(iova) + bytes + guest.queues.length * USED_STRIDE;
    const pointer = LOGS_AT + index * LOG_STRIDE;
    this.#log = new Uint8Array(rig.view.buffer, pointer, Math.ceil(end / PAGE_BYTES / 8));
    this.#log.fill(0);
    const log = new DirtyLog({ buffer: rig.view.buffer } as unknown as Arena, guest.pool);
    log.put({ pointer, window: { offset: pointer, bytes: LOG_STRIDE } }, this.#log.byteLength);
    this.#parts = guest.queues.flatMap((queue, i) => {
      const logged = this.#usedLog(i);
      log.setUsed(i, logged);
      if (!(guest instanceof PackedGuest)) return [{ at: queue.used, bytes: 6 + 8 * queue.size, logged }];
      return [
        { at: queue.desc, bytes: 16 * queue.size, logged: guest.iova(queue.desc) },
        { at: queue.used, bytes: VIRTQ_EVENT_BYTES, logged },
      ];
    });
    for (const i of guest.queues.keys()) {
      const flags = guest.queuePointer(i) + Q_FLAGS;
      rig.view.setUint32(flags, rig.view.getUint32(flags, true) | QUEUE_F_LOG, true);
    }
    this.wipe();
  }

  /** Where the used ring of queue `index` is logged: outside the guest's memory, where nothing else is. */
  #usedLog(index: number): bigint {
    const { iova, bytes } = this.guest.options;
    return iova + BigInt(bytes + index * USED_STRIDE) + 0xff8n;
  }

  /** The memory of its receive buffers. */
  get #buffers(): Uint8Array {
    const { queueSize, bufferBytes } = this.guest.options;
    return new Uint8Array(this.guest.view.buffer, this.guest.heap, queueSize * bufferBytes);
  }

  /** Marks its receive buffers as unwritten. Nobody may want what is in them any more. */
  wipe(): void {
    this.#buffers.fill(UNWRITTEN);
  }

  /** Has the device work, and notes what of the rings it changes: drivers write packed rings too. */
  during(work: () => void): void {
    const before = this.#parts.map(({ at, bytes }) => this.guest.bytes(at, bytes));
    work();
    this.#parts.forEach(({ at, bytes, logged }, i) => {
      const [then, now] = [before[i] ?? new Uint8Array(), this.guest.bytes(at, bytes)];
      if (sameBytes(then, now)) return;
      for (let offset = 0; offset < bytes; offset++) {
        if (then[offset] !== now[offset]) this.#changed.add(pageOf(logged + BigInt(offset)));
      }
    });
  }

  /** Takes the pages that are logged, and clears the log, as whoever moves the guest does. */
  take(): Set<bigint> {
    const pages = new Set<bigint>();
    this.#log.forEach((bits, byte) => {
      for (let bit = 0; bits !== 0 && bit < 8; bit++) if ((bits >> bit) & 1) pages.add(BigInt(byte * 8 + bit));
    });
    this.#log.fill(0);
    return pages;
  }

  /** Pages of receive buffers that have been written since `wipe`. */
  get #writtenBuffers(): Set<bigint> {
    const pages = new Set<bigint>();
    const first = this.guest.iova(this.guest.heap) >> BigInt(LOG_PAGE_SHIFT);
    const buffers = this.#buffers;
    for (let at = 0; at < buffers.byteLength; at += PAGE_BYTES) {
      if (!sameBytes(buffers.subarray(at, at + PAGE_BYTES), UNWRITTEN_PAGE)) pages.add(first + BigInt(at / PAGE_BYTES));
    }
    return pages;
  }

  /** Pages that rings may have in the log. */
  get #ringPages(): Set<bigint> {
    return new Set(this.#parts.flatMap(({ logged, bytes }) => pagesOf({ iova: logged, bytes })));
  }

  /** Holds the log against the memory: each page that was written is in it, and no other but of the rings. */
  check(): void {
    const logged = this.take();
    for (const page of this.#changed) assert(logged.has(page), `a ring was written at ${hex(page)}: it is not logged`);
    this.#changed.clear();
    const buffers = logged.difference(this.#ringPages);
    assertEquals(sorted(buffers), sorted(this.#writtenBuffers), "pages of buffers: logged, and written");
  }
}

function pageOf(address: bigint): bigint {
  return address >> BigInt(LOG_PAGE_SHIFT);
}

function pagesOf({ iova, bytes }: Range): bigint[] {
  const first = pageOf(iova);
  return Array.from({ length: Number(pageOf(iova + BigInt(bytes) - 1n) - first) + 1 }, (_, i) => first + BigInt(i));
}

function sorted(pages: ReadonlySet<bigint>): string[] {
  return [...pages].sort((a, b) => a < b ? -1 : 1).map(hex);
}

function hex(page: bigint): string {
  return `0x${(page << BigInt(LOG_PAGE_SHIFT)).toString(16)}`;
}
