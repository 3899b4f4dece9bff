/**
 * What a guest may share as its memory: checks of a memory table and of the files behind it, before anything is mapped.
 * The first thing wrong is a DeviceRefusal that names it.
 */
import { REGIONS_MAX } from "../layout/nic.ts";
import type { MemoryRegion } from "../device/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import { type Arena, type Fd, memoryFileStatus, sealShrink, type Window, WINDOW_BYTES } from "../os/mod.ts";

const PAGE_BYTES = 4096;

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

/** A number as guests' addresses are written. */
export function hex(n: bigint): string {
  return `0x${n.toString(16)}`;
}

/** Checks a whole table: how many regions, whole pages, no overlap, and what it takes of the arena. */
export function checkTable(regions: readonly MemoryRegion[], limits: DomainLimits): void {
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
  const total = windowBytes(regions);
  if (total > limits.bytesMax) {
    throw new DeviceRefusal(
      "memory-limit",
      `the guest's memory takes ${total} bytes, each region counted in whole windows of ${WINDOW_BYTES}: ` +
        `a VF may map at most ${limits.bytesMax}`,
    );
  }
}

/** What regions take of the arena: a window each, so that many small ones are no way around a limit. */
export function windowBytes(regions: readonly Pick<MemoryRegion, "size">[]): number {
  return regions.reduce((sum, { size }) => sum + Math.ceil(size / WINDOW_BYTES) * WINDOW_BYTES, 0);
}

/** Checks a region's file, and seals it if it can be sealed. `where`: what it is called. */
export function checkFile(
  region: MemoryRegion,
  fd: Fd,
  limits: DomainLimits,
  where = `region at ${hex(region.iova)}`,
): Candidate {
  // Sealed before it is measured: it cannot shrink in between.
  const sealed = sealShrink(fd.number);
  const file = memoryFileStatus(fd.number);
  if (!file?.isRegular) {
    throw new DeviceRefusal("bad-fd", `${where}: its descriptor is not a file in memory (memfd, tmpfs, hugetlbfs)`);
  }
  if (BigInt(region.offset) + BigInt(region.size) > file.bytes) {
    throw new DeviceRefusal(
      "past-end",
      `${where} ends at byte ${region.offset + region.size} of a file of ${file.bytes} bytes`,
    );
  }
  if (!sealed && limits.sealedOnly) {
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

/** A range of a file, as it is mapped. */
export interface MappedFile {
  window: Window;
  /** Arena offset of the range's first byte. */
  pointer: number;
}

/** Maps a file's range over a window of its own. Throws ArenaFullError if there is no room. */
export function mapFile(arena: Arena, { region, fd, pageBytes }: Candidate): MappedFile {
  const start = Math.floor(region.offset / pageBytes) * pageBytes;
  const delta = region.offset - start;
  const bytes = Math.ceil((delta + region.size) / pageBytes) * pageBytes;
  const window = arena.allocate(bytes, pageBytes);
  try {
    arena.map(window, fd.number, start, bytes);
  } catch (error) {
    arena.release(window);
    throw error;
  }
  return { window, pointer: window.offset + delta };
}
