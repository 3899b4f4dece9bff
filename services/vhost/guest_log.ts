/**
 * A session's dirty log (vhost-user.rst, "Migration"): the file that SET_LOG_BASE brought, in which whoever serves the
 * rings notes what it writes while VHOST_F_LOG_ALL is on. It goes with the rings: a backend that takes over, and a NIC
 * that comes back, log there before they serve the first ring.
 */
import { DeviceRefusal } from "../../shared/device/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import { type Message, ProtocolError } from "../../shared/vhost_user/mod.ts";
import type { SessionState } from "../../shared/api/mod.ts";
import type { BackendSlot } from "./backend_slot.ts";
import type { Ask } from "./ring_backend.ts";
import { fdsOf, type KeptObject, type Part, valueOf } from "./standby/mod.ts";

/** A log's file, and where in it the log lies. */
interface LogFile {
  fd: Fd;
  offset: number;
  size: number;
}

/** The dirty log of one session. */
export class GuestLog {
  readonly #slot: Pick<BackendSlot, "ask">;
  #file: LogFile | undefined;
  #isOn = false;
  /** Writes of this service's own that are being noted. */
  #writes: Promise<unknown> = Promise.resolve();

  constructor(slot: Pick<BackendSlot, "ask">) {
    this.#slot = slot;
  }

  /** Whether writes are to be logged: the front-end moves its guest. */
  get isOn(): boolean {
    return this.#isOn;
  }

  /** What the API shows of it. */
  get shown(): Pick<SessionState, "dirtyLog"> {
    return this.#file ? { dirtyLog: { bytes: this.#file.size, on: this.#isOn } } : {};
  }

  /** SET_LOG_BASE: this log from now on, and no longer the one before. Takes the descriptor over if it is accepted. */
  async set({ payload, fds }: Message): Promise<void> {
    const [fd] = fds;
    if (!fd) throw new ProtocolError("no descriptor came");
    const [size, offset] = [payload.getBigUint64(0, true), payload.getBigUint64(8, true)];
    if (size === 0n || offset + size > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError(`a log of 0x${size.toString(16)} bytes at 0x${offset.toString(16)} is in no file`);
    }
    const file = { fd, size: Number(size), offset: Number(offset) };
    if (this.#isOn) await start(file, (body, fds) => this.#slot.ask(body, fds));
    this.#file?.fd.close();
    this.#file = file;
    fds.length = 0;
  }

  /** VHOST_F_LOG_ALL is on, or off, from now on. `byGuest`: the guest drives its VF itself, and nobody logs that. */
  async turn(on: boolean, byGuest: boolean): Promise<void> {
    if (on && byGuest) {
      const what = "its guest drives its VF itself: put it into emulated mode before it moves";
      throw new DeviceRefusal("not-logged", what);
    }
    if (on === this.#isOn) return;
    if (this.#file && on) await start(this.#file, (body, fds) => this.#slot.ask(body, fds));
    else if (this.#file) await this.#slot.ask({ op: "logStop" });
    this.#isOn = on;
  }

  /** Gives a backend that knows nothing of it all of it. */
  async tell(ask: Ask): Promise<void> {
    if (this.#file && this.#isOn) await start(this.#file, ask);
  }

  /** Gives a backend all of it that may know of another one. */
  async tellAgain(ask: Ask): Promise<void> {
    if (this.#file && !this.#isOn) await ask({ op: "logStop" });
    await this.tell(ask);
  }

  /** Notes a write of this service's own; `settled` waits for it. */
  written(guestAddress: bigint, bytes: number): void {
    if (!this.#file || !this.#isOn) return;
    const noted = this.#slot.ask({ op: "logWritten", iova: guestAddress, size: bytes });
    this.#writes = Promise.all([this.#writes, noted]).catch(() => {});
  }

  /** Resolves when every write of this service's own up to now has been noted. */
  get settled(): Promise<unknown> {
    return this.#writes;
  }

  /** What whoever stands by has of it. */
  get kept(): Part {
    const { offset, size, fd } = this.#file ?? {};
    return { value: { isOn: this.#isOn, offset, size }, fds: fd ? [fd] : [] };
  }

  /** Goes on with the log of a process that has ended. */
  adopt(object: KeptObject): void {
    const { isOn, offset, size } = valueOf<{ isOn: boolean; offset: number; size: number }>(object, "log");
    const [fd] = fdsOf(object, "log");
    this.#isOn = isOn;
    if (fd) this.#file = { fd, offset, size };
  }

  close(): void {
    this.#file?.fd.close();
    this.#file = undefined;
  }
}

async function start({ fd, offset, size }: LogFile, ask: Ask): Promise<void> {
  await ask({ op: "logStart", offset, size }, [fd.number]);
}
