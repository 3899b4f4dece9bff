/**
 * A front-end's inflight memory (VHOST_USER_GET_INFLIGHT_FD, SET_INFLIGHT_FD): it outlives this back-end, and says to the
 * next one where each ring stands. The engines write it (assembly/engine/queue/inflight.ts), so they have it as one more
 * region of the guest's memory, at an address where no guest has any.
 */
import type { MemoryRegion } from "../../shared/device/mod.ts";
import * as I from "../../shared/layout/inflight.ts";
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { createMemfd, type Fd, isMemoryFile, readMemoryFile, writeMemoryFile } from "../../shared/os/mod.ts";
import { INFLIGHT_BYTES, ProtocolError } from "../../shared/vhost_user/mod.ts";
import { QUEUE_PAIRS_MAX, VRING_SIZE_MAX } from "./negotiation.ts";

/** Where the engines find it: beyond every guest-physical address of 52 bits. */
const INFLIGHT_IOVA = 1n << 62n;
const PAGE_BYTES = 4096;
/** Each queue's part begins on a line of its own. */
const PART_ALIGN = 64;
/** Pairs, and the control queue. */
const QUEUES_MAX = 2 * QUEUE_PAIRS_MAX + 1;

/** What both messages say: where in the file, and of how many queues of which size. */
interface Said {
  mmapSize: bigint;
  mmapOffset: bigint;
  queues: number;
  queueSize: number;
}

function read(payload: DataView): Said {
  const said = {
    mmapSize: payload.getBigUint64(0, true),
    mmapOffset: payload.getBigUint64(8, true),
    queues: payload.getUint16(16, true),
    queueSize: payload.getUint16(18, true),
  };
  const { queues, queueSize } = said;
  if (queues < 1 || queues > QUEUES_MAX) {
    throw new ProtocolError(`inflight memory of ${queues} queues: there may be 1–${QUEUES_MAX}`);
  }
  if (queueSize < 1 || queueSize > VRING_SIZE_MAX) {
    throw new ProtocolError(`inflight memory of queues of ${queueSize} entries: they have 1–${VRING_SIZE_MAX}`);
  }
  return said;
}

const upTo = (bytes: number, align: number) => Math.ceil(bytes / align) * align;

/** Bytes of one queue's part. */
function partBytes(queueSize: number, packed: boolean): number {
  const bytes = packed
    ? I.INFLIGHT_PACKED_HEADER_BYTES + queueSize * I.INFLIGHT_PACKED_ENTRY_BYTES
    : I.INFLIGHT_SPLIT_HEADER_BYTES + queueSize * I.INFLIGHT_SPLIT_ENTRY_BYTES;
  return upTo(bytes, PART_ALIGN);
}

/** A part of a ring that has never run, which its version 0 says. */
function newPart(queueSize: number, packed: boolean): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(partBytes(queueSize, packed)));
  view.setUint16(I.INFLIGHT_DESC_NUM, queueSize, true);
  if (!packed) return new Uint8Array(view.buffer);
  const wrap = VIRTQ_PACKED_BASE_INITIAL >>> 31;
  for (const at of [4, 5]) view.setUint8(I.INFLIGHT_PACKED_POSITION + at, wrap);
  // All entries are free, each with the number of the next one.
  for (let i = 0; i < queueSize; i++) {
    view.setUint16(I.INFLIGHT_PACKED_HEADER_BYTES + i * I.INFLIGHT_PACKED_ENTRY_BYTES + 2, i + 1, true);
  }
  return new Uint8Array(view.buffer);
}

/** GET_INFLIGHT_FD: makes such memory; answers its file and the payload of the answer. The caller closes the file. */
export function makeInflight(payload: DataView, packed: boolean): { fd: Fd; answer: Uint8Array } {
  const { queues, queueSize } = read(payload);
  const part = newPart(queueSize, packed);
  const bytes = upTo(part.length * queues, PAGE_BYTES);
  const fd = createMemfd("ringfabric-inflight", bytes);
  for (let i = 0; i < queues; i++) writeMemoryFile(fd.number, i * part.length, part);
  const answer = new DataView(new ArrayBuffer(INFLIGHT_BYTES));
  answer.setBigUint64(0, BigInt(bytes), true);
  answer.setUint16(16, queues, true);
  answer.setUint16(18, queueSize, true);
  // As long as the request: some front-ends do not count the padding behind the last field.
  return { fd, answer: new Uint8Array(answer.buffer, 0, payload.byteLength) };
}

/** Inflight memory that a front-end has handed over. */
export class Inflight {
  readonly fd: Fd;
  readonly region: MemoryRegion;
  readonly #packed: boolean;
  readonly #said: Said;

  private constructor(fd: Fd, packed: boolean, said: Said) {
    this.fd = fd;
    this.#packed = packed;
    this.#said = said;
    const size = upTo(said.queues * partBytes(said.queueSize, packed), PAGE_BYTES);
    this.region = { iova: INFLIGHT_IOVA, size, offset: Number(said.mmapOffset), perm: "rw" };
  }

  /** SET_INFLIGHT_FD: checks what came; takes the descriptor over. Throws ProtocolError. */
  static of(payload: DataView, fd: Fd | undefined, packed: boolean): Inflight {
    const said = read(payload);
    if (!fd) throw new ProtocolError("inflight memory without a descriptor");
    // Reading anything else could wait, for as long as whoever serves it likes.
    if (!isMemoryFile(fd.number)) {
      throw new ProtocolError("inflight memory whose descriptor is not a file in memory (memfd, tmpfs, hugetlbfs)");
    }
    if (said.mmapOffset + said.mmapSize > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError("inflight memory that lies beyond any file");
    }
    const inflight = new Inflight(fd, packed, said);
    if (BigInt(inflight.region.size) > said.mmapSize) {
      throw new ProtocolError(
        `inflight memory of ${said.mmapSize} bytes: ${said.queues} ${packed ? "packed" : "split"} queues of ` +
          `${said.queueSize} take ${inflight.region.size}`,
      );
    }
    return inflight;
  }

  /**
   * Why it cannot be gone on with; `undefined` if it can. This back-end leaves nothing in flight, and does not know how to
   * take again, out of order, what another one has left.
   */
  unfit(): string | undefined {
    const { queues, queueSize, mmapOffset } = this.#said;
    const part = new Uint8Array(partBytes(queueSize, this.#packed));
    const [header, entry] = this.#packed
      ? [I.INFLIGHT_PACKED_HEADER_BYTES, I.INFLIGHT_PACKED_ENTRY_BYTES]
      : [I.INFLIGHT_SPLIT_HEADER_BYTES, I.INFLIGHT_SPLIT_ENTRY_BYTES];
    for (let queue = 0; queue < queues; queue++) {
      if (!readMemoryFile(this.fd.number, Number(mmapOffset) + queue * part.length, part)) return "it cannot be read";
      const version = new DataView(part.buffer).getUint16(I.INFLIGHT_VERSION, true);
      if (version > I.INFLIGHT_VERSION_1) {
        return `its version is ${version}: this back-end knows ${I.INFLIGHT_VERSION_1}`;
      }
      for (let i = 0; i < queueSize; i++) {
        if (part[header + i * entry]) return `another back-end left descriptor ${i} of queue ${queue} in flight`;
      }
    }
    return undefined;
  }

  /** Where the engines find the part of a ring, if it has one. */
  iovaOf(index: number, size: number, packed: boolean): bigint | undefined {
    const { queues, queueSize } = this.#said;
    if (index >= queues || size > queueSize || packed !== this.#packed) return undefined;
    return INFLIGHT_IOVA + BigInt(index * partBytes(queueSize, packed));
  }
}
