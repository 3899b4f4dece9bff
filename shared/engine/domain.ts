/**
 * One VF's memory table: which file backs which IOVA range, mapped into which window. A change of the table is staged,
 * committed and ended. Only the commit needs the engine to stand still, and it only writes memory: files are checked
 * and mapped before it, windows are unmapped after it. Ranges that stay keep their windows, so a guest may hot-plug
 * memory under traffic, and a table that is refused leaves the one before in force.
 */
import {
  DOMAIN_STRIDE,
  DOMAINS,
  P_REGION_COUNT,
  PERM_READ,
  PERM_WRITE,
  POOL_STRIDE,
  POOLS,
  REGION_IOVA,
  REGION_PERM,
  REGION_SIZE,
  REGION_STRIDE,
  REGION_WINDOW,
} from "../layout/nic.ts";
import type { MemoryRegion } from "../device/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { type Arena, ArenaFullError, type Fd, type Window } from "../os/mod.ts";
import { type Candidate, checkFile, checkTable, type DomainLimits, hex, mapFile } from "./regions.ts";

/** A region that is in force. */
export interface MappedRegion extends MemoryRegion {
  device: bigint;
  inode: bigint;
  /** The file, for whoever stands by for this engine. */
  file: Fd;
  window: Window;
  /** Arena offset of the region's first byte. */
  pointer: number;
  /** Whether its file can no longer shrink. */
  sealed: boolean;
  /** A fault was caught in its window: part of it is no longer the guest's memory. */
  poisoned: boolean;
}

/** A line of a staged table: a region, and the mapping that it has got or keeps. */
interface StagedRegion {
  region: MemoryRegion;
  mapped: MappedRegion;
}

/** What a region holds of the process: a range of the arena, and the file over it. */
type Backing = Pick<MappedRegion, "window" | "file">;

/**
 * A table that is checked and mapped and waits to come into force. `commit` puts it in force. At its end the windows
 * that are not in force are given back: those of the table before, or its own if it was not committed.
 */
export class StagedTable implements Disposable {
  readonly #arena: Arena;
  readonly #commit: () => void;
  readonly #replaced: readonly Backing[];
  #unused: readonly Backing[];
  /** Arena offsets of its regions, in the order in which they were given. */
  readonly pointers: readonly number[];

  /** `fresh`: the backing that the table would bring; `replaced`: what it would leave. */
  constructor(
    arena: Arena,
    { fresh, replaced, pointers }: {
      fresh: readonly Backing[];
      replaced: readonly Backing[];
      pointers: readonly number[];
    },
    commit: () => void,
  ) {
    this.#arena = arena;
    this.pointers = pointers;
    this.#commit = commit;
    this.#replaced = replaced;
    this.#unused = fresh;
  }

  /** Puts the table in force. The engine must stand still; no system call is made. */
  commit(): void {
    this.#commit();
    this.#unused = this.#replaced;
  }

  [Symbol.dispose](): void {
    const unused = this.#unused;
    this.#unused = [];
    giveBack(this.#arena, unused);
  }
}

function giveBack(arena: Arena, backing: readonly Backing[]): void {
  for (const { window, file } of backing) {
    arena.release(window);
    file.close();
  }
}

/** The memory table of one pool. */
export class Domain {
  #regions: readonly MappedRegion[] = [];
  readonly #arena: Arena;
  readonly #view: DataView;
  readonly #pool: number;
  readonly #limits: DomainLimits;

  constructor(arena: Arena, pool: number, limits: DomainLimits) {
    this.#arena = arena;
    this.#view = new DataView(arena.buffer);
    this.#pool = pool;
    this.#limits = limits;
  }

  get regions(): readonly MappedRegion[] {
    return this.#regions;
  }

  /** Bytes mapped now. */
  get bytes(): number {
    return this.#regions.reduce((sum, region) => sum + region.size, 0);
  }

  /** Bytes of the arena that its windows take. */
  get windowBytes(): number {
    return this.#regions.reduce((sum, { window }) => sum + window.bytes, 0);
  }

  /** Whether part of the memory has been lost since it was shared. */
  get poisoned(): boolean {
    return this.#regions.some((region) => region.poisoned);
  }

  /** Marks the regions in whose windows these arena offsets lie; true if any is newly marked. */
  poison(offsets: readonly number[]): boolean {
    const hit = this.#regions.filter(({ window, poisoned }) =>
      !poisoned && offsets.some((offset) => offset >= window.offset && offset < window.offset + window.bytes)
    );
    for (const region of hit) region.poisoned = true;
    return hit.length > 0;
  }

  // Changes --------------------------------------------------------------------------------------------------

  /** A whole table. Throws DeviceRefusal naming the first thing wrong, or that the arena has no room. */
  stage(regions: readonly MemoryRegion[], fds: readonly Fd[]): StagedTable {
    if (regions.length !== fds.length) {
      throw new DeviceRefusal("fd-count", `${regions.length} memory regions came with ${fds.length} descriptors`);
    }
    checkTable(regions, this.#limits);
    const kept = new Set<MappedRegion>();
    return this.#stage(
      regions.map((region, i) => {
        const candidate = checkFile(region, fds[i] as Fd, this.#limits);
        const same = this.#regions.find((old) => !kept.has(old) && sameMapping(old, candidate));
        if (same) kept.add(same);
        return same ? { region, mapped: same } : candidate;
      }),
    );
  }

  /** The table in force and one more region. Throws DeviceRefusal as `stage` does. */
  stageWith(region: MemoryRegion, fd: Fd): StagedTable {
    checkTable([...this.#regions, region], this.#limits);
    return this.#stage([...this.#regions.map(unchanged), checkFile(region, fd, this.#limits)]);
  }

  /** The table in force without one region. Throws DeviceRefusal if there is no such region. */
  stageWithout(iova: bigint, size: number): StagedTable {
    const rest = this.#regions.filter((region) => region.iova !== iova || region.size !== size);
    if (rest.length === this.#regions.length) {
      throw new DeviceRefusal("no-region", `no memory region at ${hex(iova)} of ${size} bytes`);
    }
    return this.#stage(rest.map(unchanged));
  }

  /** Maps what is new; if it does not all fit, nothing of it stays mapped. */
  #stage(lines: readonly (StagedRegion | Candidate)[]): StagedTable {
    const before = this.#regions;
    const fresh: Backing[] = [];
    try {
      const staged = lines.map((line) => "mapped" in line ? line : this.#map(line, fresh));
      const stays = new Set(staged.map(({ mapped }) => mapped));
      const replaced = before.filter((region) => !stays.has(region));
      const pointers = staged.map(({ mapped }) => mapped.pointer);
      return new StagedTable(this.#arena, { fresh, replaced, pointers }, () => {
        if (this.#regions !== before) throw new Error("Cannot commit a memory table: another one came into force");
        // What stays is the same object: a fault that was attributed to it since it was staged is not forgotten.
        this.#regions = staged.map(({ region, mapped }) => Object.assign(mapped, region));
        this.write();
      });
    } catch (error) {
      giveBack(this.#arena, fresh);
      if (error instanceof ArenaFullError) {
        throw new DeviceRefusal("arena-full", `the guest's memory: ${error.message}`);
      }
      throw error;
    }
  }

  #map(candidate: Candidate, fresh: Backing[]): StagedRegion {
    const { region, device, inode, sealed, fd } = candidate;
    const { window, pointer } = mapFile(this.#arena, candidate);
    const file = fd.duplicate();
    fresh.push({ window, file });
    return { region, mapped: { ...region, device, inode, file, window, pointer, sealed, poisoned: false } };
  }

  /** Writes the table where the engine reads it. The engine stands still. */
  write(): void {
    const base = DOMAINS + this.#pool * DOMAIN_STRIDE;
    // The engine searches them by address.
    const sorted = [...this.#regions].sort((a, b) => a.iova < b.iova ? -1 : 1);
    sorted.forEach((region, i) => {
      const at = base + i * REGION_STRIDE;
      this.#view.setBigUint64(at + REGION_IOVA, region.iova, true);
      this.#view.setBigUint64(at + REGION_SIZE, BigInt(region.size), true);
      this.#view.setUint32(at + REGION_WINDOW, region.pointer, true);
      this.#view.setUint32(at + REGION_PERM, region.perm === "rw" ? PERM_READ | PERM_WRITE : PERM_READ, true);
    });
    this.#view.setUint32(POOLS + this.#pool * POOL_STRIDE + P_REGION_COUNT, this.#regions.length, true);
  }
}

function unchanged(mapped: MappedRegion): StagedRegion {
  return { region: mapped, mapped };
}

function sameMapping(old: MappedRegion, { region, device, inode }: Candidate): boolean {
  return !old.poisoned && old.device === device && old.inode === inode && old.offset === region.offset &&
    old.size === region.size;
}
