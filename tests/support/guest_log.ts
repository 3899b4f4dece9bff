/** The dirty log as a front-end has it that moves its guest: switched on while rings run, read and cleared at any time. */
import { VHOST_F_LOG_ALL, VHOST_VRING_F_LOG } from "../../shared/vhost_user/mod.ts";
import { bits, type FrontEnd, type FrontEndGuest, GUEST_BASE, SharedMemory, u64, vringAddress } from "./front_end.ts";

/** A bit for each page of a guest's memory that was written. */
export class GuestLog implements Disposable {
  readonly memory: SharedMemory;

  constructor(bytes: number) {
    this.memory = new SharedMemory(bytes);
  }

  /** One for all of the memory of a front-end's guest. */
  static for({ memory }: Pick<FrontEnd, "memory">): GuestLog {
    return new GuestLog(Number((GUEST_BASE + BigInt(memory.view.byteLength)) >> 15n));
  }

  /** Takes the pages that are logged, by number from GUEST_BASE on, and clears them. */
  take(): number[] {
    const bits = new Uint8Array(this.memory.view.buffer);
    const pages: number[] = [];
    for (let byte = 0; byte < bits.byteLength; byte++) {
      const set = bits[byte] ?? 0;
      for (let bit = 0; set !== 0 && bit < 8; bit++) if ((set >> bit) & 1) pages.push(byte * 8 + bit);
      if (set !== 0) bits[byte] = 0;
    }
    return pages.map((page) => page - Number(GUEST_BASE >> 12n));
  }

  [Symbol.dispose](): void {
    this.memory[Symbol.dispose]();
  }
}

/** SET_VRING_ADDR with the guest address at which writes into the used ring are logged. */
export function loggedAddress(
  index: number,
  [desc, used, avail]: readonly [bigint, bigint, bigint],
  log: bigint,
): Uint8Array<ArrayBuffer> {
  const bytes = vringAddress(index, desc, used, avail);
  const view = new DataView(bytes.buffer);
  view.setUint32(4, VHOST_VRING_F_LOG, true);
  view.setBigUint64(32, log, true);
  return bytes;
}

/** Has the back-end log into `log`; returns when it has answered. */
export async function setLog(front: FrontEnd<FrontEndGuest>, { memory }: GuestLog): Promise<void> {
  front.send("VHOST_USER_SET_LOG_BASE", u64(BigInt(memory.view.byteLength), 0n), [memory.fd.number]);
  await front.reply();
}

/** Switches the log of a front-end whose rings run on, as QEMU does: a log, LOG_ALL, and each used ring's address. */
export async function startLog(front: FrontEnd<FrontEndGuest>): Promise<GuestLog> {
  const log = GuestLog.for(front);
  await setLog(front, log);
  await front.acknowledged("VHOST_USER_SET_FEATURES", u64(front.features | bits(VHOST_F_LOG_ALL)));
  for (const [index, { desc, used, avail }] of front.guest.queues.entries()) {
    const addresses = [front.user(desc), front.user(used), front.user(avail)] as const;
    const address = loggedAddress(index, addresses, front.guest.iova(used));
    const code = await front.acknowledged("VHOST_USER_SET_VRING_ADDR", address);
    if (code !== 0n) throw new Error(`the back-end refused the log of ring ${index} with ${code}`);
  }
  return log;
}

/** Switches it off again. */
export async function stopLog(front: FrontEnd<FrontEndGuest>): Promise<void> {
  await front.acknowledged("VHOST_USER_SET_FEATURES", u64(front.features));
}
