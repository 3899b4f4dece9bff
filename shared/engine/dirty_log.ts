/**
 * Where an engine notes which pages of a guest's memory it has written (assembly/engine/queue/dirty_log.ts): a bitmap in
 * a file that whoever moves the guest shares. It is checked and mapped as the guest's memory is, before the pause that
 * puts it in force, and unmapped after the pause that replaces it: once that has been answered, nothing is written to the
 * log before.
 */
import { LOG_PAGE_SHIFT, NOT_LOGGED, P_LOG, P_LOG_BYTES, P_LOG_USED, POOL_STRIDE, POOLS } from "../layout/nic.ts";
import type { MemoryRegion, Request } from "../device/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { type Arena, ArenaFullError, type Fd, type Window } from "../os/mod.ts";
import { checkFile, type DomainLimits, hex, mapFile, type MappedFile } from "./regions.ts";

/** Where a log lies in its file, and its bytes. */
export type LogPlace = Pick<Extract<Request, { op: "logStart" }>, "offset" | "size">;

/** As much as a guest address space of 1 TiB takes. */
const LOG_BYTES_MAX = 32 * 1024 ** 2;

/** The dirty log of one pool. */
export class DirtyLog {
  readonly #arena: Arena;
  readonly #view: DataView;
  readonly #at: number;
  #mapped: (MappedFile & { size: number }) | undefined;
  /** Where it is, for whoever stands by for this engine. */
  #there: (LogPlace & { file: Fd }) | undefined;

  constructor(arena: Arena, pool: number) {
    this.#arena = arena;
    this.#view = new DataView(arena.buffer);
    this.#at = POOLS + pool * POOL_STRIDE;
  }

  /** The file that it is in, and where there. It stays the log's. */
  get there(): (LogPlace & { file: Fd }) | undefined {
    return this.#there;
  }

  /** Says where its file is, which is kept; or that there is none. */
  keep(place: LogPlace | undefined, file: Fd | undefined): void {
    this.#there?.file.close();
    this.#there = place && file && { offset: place.offset, size: place.size, file: file.duplicate() };
  }

  /** Writes where it is, in the memory of an engine with which this one goes on. The engine stands still. */
  write(): void {
    this.put(this.#mapped, this.#mapped?.size ?? 0);
  }

  get isOn(): boolean {
    return this.#mapped !== undefined;
  }

  /** Bytes of the arena that its window takes. */
  get windowBytes(): number {
    return this.#mapped?.window.bytes ?? 0;
  }

  /** Checks a log for a guest with these regions, and maps it. Throws DeviceRefusal. */
  map({ offset, size }: LogPlace, fd: Fd, regions: readonly MemoryRegion[], limits: DomainLimits): MappedFile {
    const covered = BigInt(size) * 8n << BigInt(LOG_PAGE_SHIFT);
    const end = regions.reduce((most, { iova, size }) => iova + BigInt(size) > most ? iova + BigInt(size) : most, 0n);
    if (size === 0 || covered < end) {
      throw new DeviceRefusal(
        "log-too-small",
        `a dirty log of ${size} bytes is for guest addresses below ${hex(covered)}, and the memory ends at ${hex(end)}`,
      );
    }
    if (size > LOG_BYTES_MAX) {
      throw new DeviceRefusal("log-limit", `a dirty log of ${size} bytes: it may have ${LOG_BYTES_MAX}`);
    }
    const candidate = checkFile({ iova: 0n, offset, size, perm: "rw" }, fd, limits, "the dirty log");
    try {
      return mapFile(this.#arena, candidate);
    } catch (error) {
      if (error instanceof ArenaFullError) throw new DeviceRefusal("arena-full", `the dirty log: ${error.message}`);
      throw error;
    }
  }

  /** Puts a mapped log of `size` bytes in force, or none. The engine stands still. Answers the window of the one before. */
  put(mapped: MappedFile | undefined, size: number): Window | undefined {
    const before = this.#mapped?.window;
    this.#mapped = mapped && { ...mapped, size };
    this.#view.setUint32(this.#at + P_LOG, mapped?.pointer ?? 0, true);
    this.#view.setUint32(this.#at + P_LOG_BYTES, mapped ? size : 0, true);
    return before;
  }

  /** Says where the used ring of queue `index`, or its device event area, is logged; nowhere if it is not said. */
  setUsed(index: number, address: bigint | undefined): void {
    this.#view.setBigUint64(this.#at + P_LOG_USED + index * 8, address ?? BigInt(NOT_LOGGED), true);
  }

  /** Whether one of these arena offsets, where memory was lost, lies in its window. */
  isHit(offsets: readonly number[]): boolean {
    const window = this.#mapped?.window;
    return window !== undefined &&
      offsets.some((offset) => offset >= window.offset && offset < window.offset + window.bytes);
  }
}
