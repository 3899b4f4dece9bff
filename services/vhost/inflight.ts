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
import { QUEUE_PAIRS_MAX } from "../../shared/layout/nic.ts";
import { VRING_SIZE_MAX } from "./negotiation.ts";
import type { KeptPart, Part } from "./standby/mod.ts";

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

/** Waits until a front-end's pace has what a piece of work costs. */
export type Pay = (cost: number) => Promise<void>;

/** So many bytes are written, or looked through, for a unit of a front-end's pace. */
const BYTES_PER_UNIT = 32 * 1024;

/** What it costs to write a queue's part, or to look through it: it may have a megabyte, and there may be 33 of them. */
function partCost(queueSize: number, packed: boolean): number {
  return 1 + Math.floor(partBytes(queueSize, packed) / BYTES_PER_UNIT);
}

/**
 * GET_INFLIGHT_FD: makes such memory, each queue's part when it is paid for; answers its file and the payload of the answer.
 * The caller closes the file.
 */
export async function makeInflight(
  payload: DataView,
  packed: boolean,
  pay: Pay,
): Promise<{ fd: Fd; answer: Uint8Array }> {
  const { queues, queueSize } = read(payload);
  const bytes = upTo(partBytes(queueSize, packed) * queues, PAGE_BYTES);
  const fd = createMemfd("ringfabric-inflight", bytes);
  try {
    const cost = partCost(queueSize, packed);
    await pay(cost);
    const part = newPart(queueSize, packed);
    for (let i = 0; i < queues; i++) {
      if (i > 0) await pay(cost);
      writeMemoryFile(fd.number, i * part.length, part);
    }
  } catch (error) {
    fd.close();
    throw error;
  }
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

  /** What whoever stands by has of it. */
  get kept(): Part {
    return { value: { packed: this.#packed, said: this.#said }, fds: [this.fd] };
  }

  /** Goes on with the memory that a process had which has ended. */
  static adopt({ value, fds }: KeptPart): Inflight | undefined {
    const { packed, said } = value as { packed: boolean; said: Said };
    const fd = fds.shift();
    return fd && new Inflight(fd, packed, said);
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
   * take again, out of order, what another one has left. Each queue's part is looked through when it is paid for.
   */
  async unfit(pay: Pay): Promise<string | undefined> {
    const { queues, queueSize, mmapOffset } = this.#said;
    const part = new Uint8Array(partBytes(queueSize, this.#packed));
    const [header, entry] = this.#packed
      ? [I.INFLIGHT_PACKED_HEADER_BYTES, I.INFLIGHT_PACKED_ENTRY_BYTES]
      : [I.INFLIGHT_SPLIT_HEADER_BYTES, I.INFLIGHT_SPLIT_ENTRY_BYTES];
    for (let queue = 0; queue < queues; queue++) {
      await pay(partCost(queueSize, this.#packed));
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
