/**
 * Hostile guests of the ring fuzzer: what is common to them whatever their rings' format. Each has frames in its memory,
 * right and wrong ones, and lays them out in descriptors that are nearly right, or not at all.
 */
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import type { AnyRigGuest, EngineRig } from "../support/engine_rig.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { frameOf, type Shape } from "../support/offload_frames.ts";
import type { RawDescriptor } from "../support/virtqueue.ts";
import type { Random } from "./random.ts";

const FRAMES = 24;
const FRAME_STRIDE = 4096;
/** Behind the frames: tables, and receive buffers. */
const SCRATCH = FRAMES * FRAME_STRIDE;
const SCRATCH_BYTES = 65536;
const PIECES_MAX = 4;
const BURST_MAX = 16;

/** The bytes of a MAC address. */
function macBytes(mac: string): number[] {
  return mac.split(":").map((byte) => parseInt(byte, 16));
}

/** A TCP segment or a datagram that fits into a frame's place, whole or to be cut. */
function anyShape(random: Random): Shape {
  return {
    version: random.pick([4, 6]),
    isTcp: random.chance(2),
    tags: random.chance(3) ? [{ type: 0x8100, tci: 1 + random.below(3) }] : [],
    ipOptions: random.chance(4) ? random.below(11) : 0,
    extensions: random.chance(4) ? [{ type: random.pick([0, 43, 60]), blocks: 1 + random.below(3) }] : [],
    tcpOptions: random.below(11),
    tcpFlags: random.below(256),
    sequence: random.u32(),
    id: random.u16(),
    dontFragment: random.chance(2),
    payloadBytes: 1 + random.below(random.chance(2) ? 3600 : 100),
    seed: random.u32(),
    gsoSize: random.pick([0, 1, 10 + random.below(100), 536, 1448]),
    isEcn: random.chance(4),
    hdrLen: random.u16(),
  };
}

/** Whom a hostile guest sends to, and as whom it should. */
export interface Targets {
  own: string;
  others: readonly string[];
}

/** A hostile guest. `act` does one thing and answers how many descriptors it has offered with it. */
export abstract class Hostile<G extends AnyRigGuest = AnyRigGuest> {
  readonly guest: G;
  /** Addresses beside its memory that it may name, and what is rewritten in the rest of its front-end's memory. */
  elsewhere: readonly bigint[] = [];
  protected readonly random: Random;
  readonly #targets: Targets;
  readonly #frames: { at: number; len: number }[];
  /** One of so many things that it does is wrong: who is caught late has come far. */
  readonly #care: number;

  constructor(random: Random, guest: G, targets: Targets) {
    this.random = random;
    this.guest = guest;
    this.#targets = targets;
    this.#care = random.pick([10, 60, 400]);
    this.#frames = Array.from({ length: FRAMES }, (_, i) => this.#write(guest.heap + i * FRAME_STRIDE));
  }

  abstract act(): number;
  /** Makes a queue fit to start again, or nearly; answers its base. */
  abstract reset(index: number): number;

  /** Starts a queue again, from wherever; if that cannot be, it is tried again later. */
  restart(rig: EngineRig, index: number): void {
    rig.wasm.startQueue(this.guest.queuePointer(index), this.reset(index));
  }

  /** A frame for anybody, mostly as it should be. */
  #write(at: number): { at: number; len: number } {
    if (this.random.chance(3)) return this.#writeUnfinished(at);
    const { random } = this;
    const { own, others } = this.#targets;
    const tags = Array.from(
      { length: random.chance(2) ? 0 : random.below(3) },
      () => ({ vid: random.chance(2) ? random.below(8) : random.below(4096), tpid: random.pick([0x8100, 0x88a8]) }),
    );
    const dst = random.pick([...others, BROADCAST, "02:00:00:00:00:77"]);
    const src = random.chance(4) ? random.pick(others) : own;
    const bytes = frame({ dst, src, bytes: random.below(random.chance(4) ? 3000 : 200), tags });
    return { at, len: this.guest.writeFrame(at, bytes, random.chance(4) ? random.bytes(12) : undefined) };
  }

  /** A frame that somebody else is to finish; now and then something is wrong with it. */
  #writeUnfinished(at: number): { at: number; len: number } {
    const { random } = this;
    const { own, others } = this.#targets;
    const { frame: bytes, header } = frameOf(anyShape(random));
    bytes.set([...macBytes(random.pick([...others, BROADCAST])), ...macBytes(own)]);
    const fields = new DataView(new ArrayBuffer(12));
    [header.flags, header.gsoType].forEach((value, i) => fields.setUint8(i, value));
    [header.hdrLen, header.gsoSize, header.csumStart, header.csumOffset].forEach((value, i) =>
      fields.setUint16(2 + 2 * i, value, true)
    );
    if (random.chance(3)) fields.setUint8(random.below(10), random.below(256));
    if (random.chance(3)) bytes[12 + random.below(Math.min(80, bytes.length - 12))] = random.below(256);
    return { at, len: this.guest.writeFrame(at, bytes, new Uint8Array(fields.buffer)) };
  }

  /** Writes one of its frames anew. */
  protected rewriteFrame(): void {
    const i = this.random.below(FRAMES);
    this.#frames[i] = this.#write(this.guest.heap + i * FRAME_STRIDE);
  }

  /** An address in or near the guest's memory, or anywhere. */
  protected address(): bigint {
    const { random, guest: { options: { iova, bytes } } } = this;
    if (random.chance(8)) return random.u64();
    if (this.elsewhere.length > 0 && random.chance(3)) {
      return BigInt.asUintN(64, random.pick(this.elsewhere) + BigInt(random.below(200) - 100));
    }
    const edge = random.chance(4) ? random.pick([0, bytes]) : random.below(bytes);
    return BigInt.asUintN(64, iova + BigInt(edge + (random.chance(4) ? random.below(200) - 100 : 0)));
  }

  /** Somewhere in memory that tables and receive buffers may have. */
  protected scratch(): number {
    return this.guest.heap + SCRATCH + this.random.below(SCRATCH_BYTES / 16) * 16;
  }

  /** A frame in pieces; now and then one of them is not where or what it should be. */
  protected pieces(): { addr: bigint; len: number }[] {
    const { random } = this;
    const { at, len } = random.pick(this.#frames);
    const count = 1 + random.below(PIECES_MAX);
    const step = Math.ceil(len / count);
    const pieces = Array.from({ length: count }, (_, i) => ({
      addr: this.guest.iova(at + i * step),
      len: Math.max(0, Math.min(step, len - i * step)),
    }));
    if (this.errs()) this.#bend(random.pick(pieces));
    return pieces;
  }

  /** Room for a frame, or nearly. */
  protected roomPieces(): { addr: bigint; len: number }[] {
    const { random } = this;
    const pieces = Array.from({ length: 1 + random.below(PIECES_MAX) }, () => ({
      addr: this.elsewhere.length > 0 && random.chance(4)
        ? random.pick(this.elsewhere)
        : this.guest.iova(this.scratch()),
      len: random.chance(8) ? 0 : random.below(2048),
    }));
    if (this.errs()) this.#bend(random.pick(pieces));
    return pieces;
  }

  #bend(piece: { addr: bigint; len: number }): void {
    if (this.random.chance(2)) piece.addr = this.address();
    else piece.len = this.random.u32();
  }

  /** Pieces as a chain's descriptors, with a wrong flag now and then. */
  protected chain(pieces: readonly { addr: bigint; len: number }[], write: boolean): RawDescriptor[] {
    return pieces.map((piece, i) => ({
      ...piece,
      flags: (write ? VIRTQ_DESC_F_WRITE : 0) ^ (i + 1 < pieces.length ? VIRTQ_DESC_F_NEXT : 0) ^
        (this.errs() ? this.random.pick([VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_DESC_F_INDIRECT]) : 0),
    }));
  }

  /** Whether it does something wrong now. */
  protected errs(): boolean {
    return this.random.chance(this.#care);
  }

  /** How many frames an act offers: mostly few. */
  protected burst(): number {
    return this.random.chance(2) ? 1 : 1 + this.random.below(BURST_MAX);
  }

  /** 16 bits anywhere in the rings. */
  protected scribble(): void {
    const { view, options: { offset }, heap } = this.guest;
    view.setUint16(offset + this.random.below((heap - offset) / 2) * 2, this.random.u16(), true);
  }
}
