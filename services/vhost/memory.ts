/**
 * The front-end's memory table: guest addresses, the front-end's own addresses for them, and the files behind. Buffers
 * are named by guest address (the IOVA), rings by the front-end's address, so rings are translated here.
 */
import { type Fd, isMemoryFile, readMemoryFile, writeMemoryFile } from "../../shared/os/mod.ts";
import { DeviceRefusal, type MemoryRegion } from "../../shared/device/mod.ts";
import { ProtocolError, type VhostRegion } from "../../shared/vhost_user/mod.ts";
import type { Part } from "./standby/mod.ts";

interface Entry {
  region: VhostRegion;
  fd: Fd;
}

const U64_END = 1n << 64n;

function check(region: VhostRegion): void {
  const at = `memory region at 0x${region.guestAddress.toString(16)}`;
  if (region.size === 0n) throw new ProtocolError(`${at} is empty`);
  for (const start of [region.guestAddress, region.userAddress, region.mmapOffset]) {
    if (start + region.size > U64_END) throw new ProtocolError(`${at} of 0x${region.size.toString(16)} bytes wraps`);
  }
  if (region.mmapOffset + region.size > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new ProtocolError(`${at} lies beyond any file`);
  }
}

/** A region as the device socket wants it. */
export function toDevice(region: VhostRegion): MemoryRegion {
  return {
    iova: region.guestAddress,
    size: Number(region.size),
    offset: Number(region.mmapOffset),
    perm: "rw",
  };
}

/** The table in force. */
export class MemoryTable {
  #entries: Entry[] = [];

  get size(): number {
    return this.#entries.length;
  }

  /** What whoever stands by has of it. */
  get kept(): Part {
    return { value: this.#entries.map(({ region }) => region), fds: this.#entries.map(({ fd }) => fd) };
  }

  get regions(): MemoryRegion[] {
    return this.#entries.map(({ region }) => toDevice(region));
  }

  get fds(): number[] {
    return this.#entries.map(({ fd }) => fd.number);
  }

  /** Makes a table of checked regions; takes the descriptors over. */
  static of(regions: readonly VhostRegion[], fds: readonly Fd[]): MemoryTable {
    if (regions.length !== fds.length) {
      throw new ProtocolError(`${regions.length} memory regions came with ${fds.length} descriptors`);
    }
    regions.forEach(check);
    fds.forEach(({ number }, i) => {
      if (isMemoryFile(number)) return;
      const where = regions[i]?.guestAddress.toString(16);
      throw new DeviceRefusal(
        "bad-fd",
        `region at 0x${where}: its descriptor is not a file in memory (memfd, tmpfs, hugetlbfs)`,
      );
    });
    const table = new MemoryTable();
    table.#entries = regions.map((region, i) => ({ region, fd: fds[i] as Fd }));
    return table;
  }

  /** Adds one region; takes the descriptor over. */
  add(region: VhostRegion, fd: Fd): void {
    check(region);
    this.#entries.push({ region, fd });
  }

  #find(wanted: VhostRegion): number {
    return this.#entries.findIndex(({ region }) =>
      region.guestAddress === wanted.guestAddress && region.size === wanted.size &&
      region.userAddress === wanted.userAddress
    );
  }

  /** Whether there is a region with exactly these addresses and this size. */
  has(region: VhostRegion): boolean {
    return this.#find(region) >= 0;
  }

  /** The table without a region; it owns no descriptors. */
  without(region: VhostRegion): MemoryTable {
    const table = new MemoryTable();
    table.#entries = this.#entries.toSpliced(this.#find(region), 1);
    return table;
  }

  /** Takes a region out and closes its file. */
  remove(region: VhostRegion): void {
    const [entry] = this.#entries.splice(this.#find(region), 1);
    entry?.fd.close();
  }

  /** The guest address of one of the front-end's own addresses. */
  toGuest(userAddress: bigint): bigint | undefined {
    for (const { region } of this.#entries) {
      const offset = userAddress - region.userAddress;
      if (offset >= 0n && offset < region.size) return region.guestAddress + offset;
    }
    return undefined;
  }

  /** Reads `bytes` bytes of the guest's memory; `undefined` if they are not all there. */
  read(guestAddress: bigint, bytes: number): Uint8Array<ArrayBuffer> | undefined {
    const all = new Uint8Array(bytes);
    const isRead = this.#pieces(guestAddress, all, (fd, offset, piece) => readMemoryFile(fd, offset, piece));
    return isRead ? all : undefined;
  }

  /** Writes into the guest's memory; false if not all of it is there. */
  write(guestAddress: bigint, bytes: Uint8Array<ArrayBuffer>): boolean {
    return this.#pieces(guestAddress, bytes, writeMemoryFile);
  }

  /** Calls `step` for each region that a range lies in; false if it leaves them, or a step fails. */
  #pieces(
    guestAddress: bigint,
    bytes: Uint8Array<ArrayBuffer>,
    step: (fd: number, offset: number, piece: Uint8Array<ArrayBuffer>) => boolean,
  ): boolean {
    for (let at = 0; at < bytes.byteLength;) {
      const from = guestAddress + BigInt(at);
      const entry = this.#entries.find(({ region: { guestAddress: start, size } }) =>
        from >= start && from < start + size
      );
      if (!entry) return false;
      const into = Number(from - entry.region.guestAddress);
      const length = Math.min(bytes.byteLength - at, Number(entry.region.size) - into);
      const offset = Number(entry.region.mmapOffset) + into;
      if (!step(entry.fd.number, offset, bytes.subarray(at, at + length))) return false;
      at += length;
    }
    return true;
  }

  close(): void {
    for (const { fd } of this.#entries) fd.close();
    this.#entries = [];
  }
}
