/**
 * Capture files in the kernel's place: a read brings the next frame of the one that is replayed, when its time has come;
 * a write puts a frame into the one that is recorded. Writing may wait for a disk, but no other port waits for this
 * thread.
 */
import * as N from "../layout/netdev.ts";
import { VIRTIO_NET_HDR_BYTES } from "../layout/virtio.ts";
import { readAt, writeAll } from "../os/files.ts";
import { EAGAIN } from "../os/libc.ts";
import { type CapturedFrame, CaptureReader, pcapngHeader, pcapngPacketBytes, putPcapngPacket } from "../pcap/mod.ts";
import type { CaptureDrive } from "./backend.ts";
import { LocalCalls } from "./calls.ts";

const ENOSPC = 28;
const RECORD_BYTES = 256 * 1024;
const ETHERNET_BYTES = 14;
/** A frame whose time is later is looked at again by then: files lie, and no wait may be longer than the kernel's is. */
const IDLE_MS_MAX = 3_600_000;
/** Frames that are passed over in one look. */
const SKIPS_MAX = 10_000;

/** A port's reads and writes of capture files. `tell`: told when a file is at its end, or cannot go on. */
export class CaptureCalls extends LocalCalls {
  readonly io = "file";
  readonly #bytes: Uint8Array;
  readonly #drive: CaptureDrive;
  readonly #tell: (text: string) => void;
  #reader: CaptureReader | undefined;
  /** The frame that comes next, and the capture's time and ours when the replay began. */
  #next: CapturedFrame | undefined;
  #began: { fileNs: number; ownMs: number } | undefined;
  readonly #record = new DataView(new ArrayBuffer(RECORD_BYTES));
  #recorded = 0;
  #cannotWrite = false;

  constructor(memory: WebAssembly.Memory, drive: CaptureDrive, tell: (text: string) => void) {
    super(memory);
    this.#bytes = new Uint8Array(memory.buffer);
    this.#drive = drive;
    this.#tell = tell;
    const { replay, record } = drive;
    if (replay !== undefined) this.#reader = new CaptureReader((into, offset) => readAt(replay, into, offset));
    if (record !== undefined) writeAll(record, pcapngHeader(["uplink"]));
  }

  protected override do(entry: number, id: number, isRead: boolean): number {
    if (isRead) return this.#read(N.ND_TX_BUFFERS + id * N.ND_BUFFER_STRIDE + N.ND_BUFFER_OFFSET);
    const bytes = this.view.getUint32(entry + N.SQE_LENGTH, true);
    const at = N.ND_RX_BUFFERS + id * N.ND_BUFFER_STRIDE + N.ND_BUFFER_OFFSET + VIRTIO_NET_HDR_BYTES;
    return this.#write(at, bytes - VIRTIO_NET_HDR_BYTES) ? bytes : -ENOSPC;
  }

  #read(at: number): number {
    const frame = this.#frame();
    if (!frame || this.#dueMs(frame) > 0) return -EAGAIN;
    this.#next = undefined;
    this.#bytes.fill(0, at, at + VIRTIO_NET_HDR_BYTES);
    this.#bytes.set(frame.bytes, at + VIRTIO_NET_HDR_BYTES);
    return VIRTIO_NET_HDR_BYTES + frame.bytes.byteLength;
  }

  /** How long the frame's time is to come. */
  #dueMs({ ns }: CapturedFrame): number {
    if (!this.#drive.isPaced) return 0;
    this.#began ??= { fileNs: ns, ownMs: performance.now() };
    return (ns - this.#began.fileNs) / 1e6 - (performance.now() - this.#began.ownMs);
  }

  /** The frame that comes next. One that is not whole, or not of Ethernet, is passed over. */
  #frame(): CapturedFrame | undefined {
    if (this.#next) return this.#next;
    try {
      for (let skips = 0; this.#reader && skips < SKIPS_MAX; skips++) {
        const frame = this.#reader.next();
        if (!frame) {
          this.#atEnd();
          continue;
        }
        const { bytes, length, isEthernet } = frame;
        const isWhole = bytes.byteLength === length && bytes.byteLength >= ETHERNET_BYTES;
        if (isEthernet && isWhole && bytes.byteLength <= N.ND_BUFFER_ROOM - VIRTIO_NET_HDR_BYTES) {
          return this.#next = frame;
        }
        this.#skipped();
      }
    } catch (error) {
      this.#reader = undefined;
      this.#tell(`the replay has ended: ${(error as Error).message}`);
    }
    return undefined;
  }

  #skipped(): void {
    const at = N.ND_COUNTERS + N.NCO_IN_CUT_OFF;
    this.view.setBigUint64(at, this.view.getBigUint64(at, true) + 1n, true);
  }

  #atEnd(): void {
    this.#began = undefined;
    if (this.#drive.loops) return this.#reader?.rewind();
    this.#reader = undefined;
    this.#tell("the replay has ended: every frame of the file has been sent");
  }

  #write(at: number, length: number): boolean {
    // Nothing is recorded; whoever sends to a file that is only replayed sends to nobody.
    if (this.#drive.record === undefined) return true;
    if (this.#recorded + pcapngPacketBytes(length) > RECORD_BYTES) this.#flush();
    if (this.#cannotWrite) return false;
    const ns = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1e3)) * 1000n;
    const bytes = this.#bytes.subarray(at, at + length);
    this.#recorded = putPcapngPacket(this.#record, this.#recorded, { bytes, length, ns, sent: true });
    return true;
  }

  #flush(): void {
    const bytes = this.#recorded;
    this.#recorded = 0;
    if (bytes === 0 || this.#drive.record === undefined || this.#cannotWrite) return;
    try {
      writeAll(this.#drive.record, new Uint8Array(this.#record.buffer, 0, bytes));
    } catch (error) {
      this.#cannotWrite = true;
      this.#tell(`the recording has ended: ${(error as Error).message}`);
    }
  }

  override idle(): number {
    this.#flush();
    const frame = this.#frame();
    return frame ? Math.min(IDLE_MS_MAX, Math.max(0, Math.ceil(this.#dueMs(frame)))) : -1;
  }

  override close(): void {
    this.#flush();
  }
}
