/**
 * Where a driver pair's rings and buffers lie, and its two queues as the engine has them. The NIC sees the pair's memory,
 * and a guest's beside it, at the addresses that they have in this engine's arena: no two of them collide, and a pointer
 * that was checked here is an address there.
 *
 *      0x00_0000  receive ring, transmit ring    16 KiB each
 *      0x01_0000  host buffers of both             2 MiB each
 *      0x41_0000  the direct path's state         36 KiB, of this process alone
 */
import { ADV_DESC_BYTES, ADV_REG_TAIL, ADV_REGISTER_STRIDE } from "../../shared/layout/advanced.ts";
import * as L from "../../shared/layout/nic.ts";

/** Descriptors of each ring. */
export const PAIR_SIZE = 1024;
export const PAIR_RING_BYTES = PAIR_SIZE * ADV_DESC_BYTES;
const BUFFERS_BYTES = PAIR_SIZE * L.DRIVER_BUFFER_BYTES;
const FIRST_BUFFER = 0x10000;
/** What of it the NIC sees, and all of it. */
export const PAIR_SHARED_BYTES = FIRST_BUFFER + 2 * BUFFERS_BYTES;
export const PAIR_BYTES = PAIR_SHARED_BYTES + L.DIRECT_STATE_BYTES;
/** The queues' numbers at the NIC. */
export const RX = 0;
export const TX = 1;

/** How much of a frame goes past the pair's own buffers: nothing, all of it, or all but its headers. */
export type Directness = "copy" | "zerocopy" | "headersplit";

/** A pair, as the engine has to know it. */
export interface PairPlace {
  /** Its queues, its memory, and its registers, as arena offsets. */
  rx: number;
  tx: number;
  memory: number;
  registers: number;
  /** The pool of this engine that its frames belong to. */
  pool: number;
  /** Its frames go straight to the pool's queues, past the switch. */
  emulated: boolean;
  directness: Directness;
  /** Descriptors: this engine kicks the NIC, the NIC says that frames have come, and that it has sent some. */
  kick: number;
  call: number;
  sent: number;
}

/** Where the direct path's state of a pair is. */
export function directState(memory: number): number {
  return memory + PAIR_SHARED_BYTES;
}

/** Begins anew with no books; what was counted, and whether the path is halted, stays. */
function closeDirect(bytes: Uint8Array, state: number): void {
  bytes.fill(0, state + L.DIRECT_SENT, state + L.DIRECT_TX_FRAMES);
  bytes.fill(0, state + L.DIRECT_TX_BOOKS, state + L.DIRECT_STATE_BYTES);
}

/**
 * Says where a pair that another process has described is in this one. The NIC goes on with the addresses that it knows, so
 * Q_BUFFERS_IOVA stays. The engine stands still.
 */
export function movePair(view: DataView, { rx, tx, memory, registers, call, kick }: PairPlace): void {
  [rx, tx].forEach((at, index) => {
    view.setUint32(at + L.Q_DESC, memory + index * PAIR_RING_BYTES, true);
    view.setUint32(at + L.Q_REGISTERS, registers + index * ADV_REGISTER_STRIDE, true);
    view.setUint32(at + L.Q_BUFFERS, memory + FIRST_BUFFER + index * BUFFERS_BYTES, true);
  });
  view.setInt32(tx + L.Q_CALL_FD, kick, true);
  view.setInt32(rx + L.Q_KICK_FD, call, true);
}

/** Describes both queues, which are stopped; their rings are empty. The engine stands still. */
export function describePair(view: DataView, place: PairPlace): void {
  const { memory, registers, directness } = place;
  const bytes = new Uint8Array(view.buffer);
  const isDirect = directness !== "copy";
  if (isDirect) closeDirect(bytes, directState(memory));
  const describe = (at: number, index: number, flavour: number) => {
    // It may be among the queues that are polled, or that wait for a kick, and stays there.
    const heat = view.getUint32(at + L.Q_HEAT, true);
    bytes.fill(0, at, at + L.QUEUE_STRIDE);
    view.setUint32(at + L.Q_HEAT, heat, true);
    view.setUint32(at + L.Q_STATE, L.QUEUE_STOPPED, true);
    view.setUint32(at + L.Q_FLAVOUR, flavour, true);
    view.setUint32(at + L.Q_SIZE, PAIR_SIZE, true);
    view.setUint32(at + L.Q_POOL, place.pool, true);
    view.setUint32(at + L.Q_LAST_AVAIL, 0, true);
    view.setUint16(at + L.Q_OFFLOADS, L.OFFLOADS_ALL, true);
    view.setUint32(at + L.Q_DESC, memory + index * PAIR_RING_BYTES, true);
    view.setUint32(at + L.Q_REGISTERS, registers + index * ADV_REGISTER_STRIDE, true);
    const buffers = memory + FIRST_BUFFER + index * BUFFERS_BYTES;
    view.setUint32(at + L.Q_BUFFERS, buffers, true);
    view.setBigUint64(at + L.Q_BUFFERS_IOVA, BigInt(buffers), true);
    view.setUint32(at + L.Q_HEADER_BYTES, directness === "headersplit" ? L.DIRECT_HEADER_BYTES : 0, true);
    view.setInt32(at + L.Q_CALL_FD, index === TX ? place.kick : -1, true);
    // In emulated mode rx names itself: its frames go to its pool's receive queues.
    view.setUint32(at + L.Q_CARRY_TO, place.emulated && (isDirect || index === RX) ? at : 0, true);
    view.setInt32(at + L.Q_KICK_FD, index === RX ? place.call : isDirect ? place.sent : -1, true);
    view.setUint32(at + L.Q_DIRECT, isDirect ? directState(memory) : 0, true);
  };
  describe(place.rx, RX, L.FLAVOUR_DRIVER_RX);
  describe(place.tx, TX, L.FLAVOUR_DRIVER_TX);
  view.setUint32(registers + TX * ADV_REGISTER_STRIDE + ADV_REG_TAIL, 0, true);
}
