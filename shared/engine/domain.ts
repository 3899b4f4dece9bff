/**
 * One VF's memory table: which file backs which IOVA range, mapped into which window. Replacing the table is one step
 * between two bursts; ranges that stay keep their windows, so a guest may hot-plug memory under traffic, and a table
 * that is refused leaves the one before in force.
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
  REGIONS_MAX,
} from "../layout/nic.ts";
import { DeviceRefusal, type MemoryRegion } from "../device/mod.ts";
import { type Arena, ArenaFullError, type Fd, fileStatus, sealShrink, type Window, WINDOW_BYTES } from "../os/mod.ts";

const PAGE_BYTES = 4096;

/** A region that is in force. */
export interface MappedRegion extends MemoryRegion {
  device: bigint;
  inode: bigint;
  window: Window;
  /** Arena offset of the region's first byte. */
  pointer: number;
  /** Whether its file can no longer shrink. */
  sealed: boolean;
  /** A fault was caught in its window: part of it is no longer the guest's memory. */
  poisoned: boolean;
}

/** Limits on what a VF may map. */
export interface DomainLimits {
  /** Bytes one VF may have mapped. */
  bytesMax: number;
  /** Refuse memory that its owner could truncate. */
  sealedOnly: boolean;
}

/** A region whose file has been looked at. */
export interface Candidate {
  region: MemoryRegion;
  fd: Fd;
  device: bigint;
  inode: bigint;
  sealed: boolean;
  pageBytes: number;
}

function hex(n: bigint): string {
  return `0x${n.toString(16)}`;
}

/** The memory table of one pool. */
export class Domain {
  #regions: MappedRegion[] = [];
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

  /** Checks a whole table; throws DeviceRefusal naming the first thing wrong. Nothing is changed. */
  check(regions: readonly MemoryRegion[], fds: readonly Fd[]): Candidate[] {
    if (regions.length !== fds.length) {
      throw new DeviceRefusal("fd-count", `${regions.length} memory regions came with ${fds.length} descriptors`);
    }
    this.#checkRanges(regions);
    return regions.map((region, i) => this.#checkFile(region, fds[i] as Fd));
  }

  #checkRanges(regions: readonly MemoryRegion[]): void {
    if (regions.length > REGIONS_MAX) {
      throw new DeviceRefusal("too-many-regions", `${regions.length} memory regions: at most ${REGIONS_MAX}`);
    }
    const sorted = [...regions].sort((a, b) => a.iova < b.iova ? -1 : 1);
    sorted.forEach((region, i) => {
      const end = region.iova + BigInt(region.size);
      // Whole pages, as every hypervisor has them: bytes here and there would only be work for the engine.
      if ([region.iova, BigInt(region.size), BigInt(region.offset)].some((n) => n % BigInt(PAGE_BYTES) !== 0n)) {
        throw new DeviceRefusal(
          "bad-region",
          `region at ${hex(region.iova)} of ${region.size} bytes is not whole pages`,
        );
      }
      if (region.size === 0) throw new DeviceRefusal("bad-region", `region at ${hex(region.iova)} is empty`);
      if (end > 1n << 64n) {
        throw new DeviceRefusal("bad-region", `region at ${hex(region.iova)} of ${region.size} bytes wraps past 2^64`);
      }
      const next = sorted[i + 1];
      if (next && next.iova < end) {
        throw new DeviceRefusal("overlap", `regions at ${hex(region.iova)} and ${hex(next.iova)} overlap`);
      }
    });
    // What counts is what a region takes of the arena, so that many small ones are no way around the limit.
    const total = regions.reduce((sum, region) => sum + Math.max(region.size, 64 * 1024), 0);
    if (total > this.#limits.bytesMax) {
      throw new DeviceRefusal(
        "memory-limit",
        `the guest's memory is ${total} bytes: a VF may map at most ${this.#limits.bytesMax}`,
      );
    }
  }

  #checkFile(region: MemoryRegion, fd: Fd): Candidate {
    // Sealed before it is measured: it cannot shrink in between.
    const sealed = sealShrink(fd.number);
    const file = fileStatus(fd.number);
    const where = `region at ${hex(region.iova)}`;
    if (!file.isRegular || !file.isMemory) {
      throw new DeviceRefusal("bad-fd", `${where}: its descriptor is not a file in memory (memfd, tmpfs, hugetlbfs)`);
    }
    if (BigInt(region.offset) + BigInt(region.size) > file.bytes) {
      throw new DeviceRefusal(
        "past-end",
        `${where} ends at byte ${region.offset + region.size} of a file of ${file.bytes} bytes`,
      );
    }
    if (!sealed && this.#limits.sealedOnly) {
      throw new DeviceRefusal("unsealed", `${where}: its file can be truncated; use a memfd with F_SEAL_SHRINK`);
    }
    const huge = file.blockBytes >= BigInt(WINDOW_BYTES);
    if (file.blockBytes > BigInt(WINDOW_BYTES)) {
      throw new DeviceRefusal(
        "huge-pages",
        `${where}: its pages of ${file.blockBytes} bytes could not be repaired if they vanish; use 2 MiB or 4 KiB pages`,
      );
    }
    return {
      region,
      fd,
      device: file.device,
      inode: file.inode,
      sealed,
      pageBytes: huge ? Number(file.blockBytes) : PAGE_BYTES,
    };
  }

  /**
   * Puts a checked table in force. The engine must stand still. Throws DeviceRefusal if the arena has no room; the
   * table before is then still in force.
   */
  replace(candidates: readonly Candidate[]): void {
    const kept = new Set<MappedRegion>();
    const reuse = candidates.map((candidate) => {
      const same = this.#regions.find((old) => !kept.has(old) && sameMapping(old, candidate));
      if (same) kept.add(same);
      return same;
    });
    let released: MappedRegion[] = [];
    this.#undoing((fresh) => {
      const next = candidates.map((candidate, i) => {
        const { region, device, inode, sealed } = candidate;
        const old = reuse[i];
        if (old) return { ...old, ...region };
        return { ...region, device, inode, sealed, poisoned: false, ...this.#map(candidate, fresh) };
      });
      released = this.#regions.filter((old) => !kept.has(old));
      this.#regions = next;
    });
    this.#write();
    for (const { window } of released) this.#arena.release(window);
  }

  #map(candidate: Candidate, fresh: Window[]): { window: Window; pointer: number } {
    const { region, fd, pageBytes } = candidate;
    const start = Math.floor(region.offset / pageBytes) * pageBytes;
    const delta = region.offset - start;
    const mapped = Math.ceil((delta + region.size) / pageBytes) * pageBytes;
    const window = this.#arena.allocate(mapped, pageBytes);
    fresh.push(window);
    this.#arena.map(window, fd.number, start, mapped);
    return { window, pointer: window.offset + delta };
  }

  /** Checks one more region; throws DeviceRefusal. Nothing is changed. */
  checkOne(region: MemoryRegion, fd: Fd): Candidate {
    this.#checkRanges([...this.#regions, region]);
    return this.#checkFile(region, fd);
  }

  /** Adds one checked region to the table in force. The engine must stand still. */
  add(candidate: Candidate): void {
    const { region, device, inode, sealed } = candidate;
    this.#undoing((fresh) => {
      this.#regions.push({ ...region, device, inode, sealed, poisoned: false, ...this.#map(candidate, fresh) });
    });
    this.#write();
  }

  /** Runs `change`; if it throws, the windows it noted are given back. */
  #undoing(change: (fresh: Window[]) => void): void {
    const fresh: Window[] = [];
    try {
      change(fresh);
    } catch (error) {
      for (const window of fresh) this.#arena.release(window);
      if (error instanceof ArenaFullError) {
        throw new DeviceRefusal("arena-full", `the guest's memory: ${error.message}`);
      }
      throw error;
    }
  }

  /** Takes one region away. The engine must stand still, and no queue may use it afterwards. */
  remove(iova: bigint, size: number): void {
    const at = this.#regions.findIndex((region) => region.iova === iova && region.size === size);
    const region = this.#regions[at];
    if (!region) throw new DeviceRefusal("no-region", `no memory region at ${hex(iova)} of ${size} bytes`);
    this.#regions.splice(at, 1);
    this.#write();
    this.#arena.release(region.window);
  }

  /** Unmaps everything. The engine must stand still. */
  clear(): void {
    const released = this.#regions;
    this.#regions = [];
    this.#write();
    for (const { window } of released) this.#arena.release(window);
  }

  /** Writes the table where the engine reads it. */
  #write(): void {
    const base = DOMAINS + this.#pool * DOMAIN_STRIDE;
    this.#regions.forEach((region, i) => {
      const at = base + i * REGION_STRIDE;
      this.#view.setBigUint64(at + REGION_IOVA, region.iova, true);
      this.#view.setBigUint64(at + REGION_SIZE, BigInt(region.size), true);
      this.#view.setUint32(at + REGION_WINDOW, region.pointer, true);
      this.#view.setUint32(at + REGION_PERM, region.perm === "rw" ? PERM_READ | PERM_WRITE : PERM_READ, true);
    });
    this.#view.setUint32(POOLS + this.#pool * POOL_STRIDE + P_REGION_COUNT, this.#regions.length, true);
  }
}

function sameMapping(old: MappedRegion, { region, device, inode }: Candidate): boolean {
  return !old.poisoned && old.device === device && old.inode === inode && old.offset === region.offset &&
    old.size === region.size;
}
