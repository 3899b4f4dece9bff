/**
 * The plugin for hardware with advanced descriptor rings (82599 datasheet §7.1.6, §7.2.3): doorbells, write-back, head
 * write-back for transmit completions, split headers, and offloads (offload.ts). It may touch what the shell has mapped
 * into its memory and nothing else (docs/plugin-api.md); buffers are the shell's, named by number.
 *
 * With split headers each receive descriptor holds two buffers: the header goes to the second one, the payload to the
 * first, and a frame that is not split leaves the second one unused, to be given out again.
 */
import {
  ADV_REG_INTERRUPT,
  ADV_RXD_ERR_L4E,
  ADV_RXD_HDRLEN_MASK,
  ADV_RXD_HDRLEN_SHIFT,
  ADV_RXD_SPH,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
  ADV_RXD_STAT_L4I,
} from "../../../shared/layout/advanced.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_CSUM_VALID,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_OFFSET,
  LIST_POST,
  LIST_RX,
  PC_ACCEPTED,
  PC_FEATURES,
  PC_HEADER_BYTES,
  PC_QUEUE_PAIRS,
  PC_RING_SIZE,
  PLUGIN_ABI,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_QUEUE_PAIRS_MAX,
  PLUGIN_RING_SIZE_MAX,
  PLUGIN_STATE,
} from "../../../shared/layout/plugin.ts";
import { acceptedOf, hearsOfChecksums } from "./offload.ts";
import {
  A_CLEAN,
  A_TAIL,
  bufferIova,
  descriptorOf,
  doorbell,
  headerMapOf,
  layOut,
  mapOf,
  mask,
  registersOf,
  stateOf,
} from "./rings.ts";

export { tx, txDone } from "./transmit.ts";

/** Descriptors of one frame that a driver looks ahead for. */
const CHAIN_MAX: u32 = 40;

/** Bytes of header buffers, 0: frames are not split. */
let headerBytes: u32 = 0;
/** What a status must say for the frame's checksum to be good: nothing does, unless the shell wants to hear it. */
let goodChecksum: u32 = 0;

export function abi(): u32 {
  return PLUGIN_ABI;
}

/** Lays out the rings that the configuration asks for and names them; 0, or -1 if it asks for what cannot be. */
export function start(): i32 {
  const pairs = load<u32>(PLUGIN_STATE, PC_QUEUE_PAIRS);
  const size = load<u32>(PLUGIN_STATE, PC_RING_SIZE);
  if (pairs == 0 || pairs > <u32> PLUGIN_QUEUE_PAIRS_MAX) return -1;
  if (size < 8 || size > <u32> PLUGIN_RING_SIZE_MAX || (size & (size - 1)) != 0) return -1;
  headerBytes = load<u32>(PLUGIN_STATE, PC_HEADER_BYTES);
  const accepted = acceptedOf(load<u64>(PLUGIN_STATE, PC_FEATURES));
  store<u64>(PLUGIN_STATE, accepted, PC_ACCEPTED);
  goodChecksum = hearsOfChecksums(accepted) ? ADV_RXD_STAT_L4I : 0;
  layOut(pairs * 2, size);
  return 0;
}

/** Ends it. The shell takes back every buffer. */
export function stop(): void {
}

/** Gives `count` buffers of LIST_POST to the device to fill; answers how many it took. */
export function post(pair: u32, count: u32): u32 {
  const queue = pair * 2;
  const state = stateOf(queue);
  let tail = load<u32>(state, A_TAIL);
  const free = (load<u32>(state, A_CLEAN) - tail - 1) & mask;
  const each: u32 = headerBytes != 0 ? 2 : 1;
  const descriptors = min(count / each, free);
  for (let i: u32 = 0; i < descriptors; i++) {
    const buffer = load<u32>(LIST_POST + i * each * 4) & (PLUGIN_BUFFER_COUNT - 1);
    const descriptor = descriptorOf(queue, tail);
    store<u32>(mapOf(queue, tail), buffer);
    store<u64>(descriptor, bufferIova(buffer));
    let header: u64 = 0;
    if (headerBytes != 0) {
      const second = load<u32>(LIST_POST + (i * each + 1) * 4) & (PLUGIN_BUFFER_COUNT - 1);
      store<u32>(headerMapOf(queue, tail), second);
      header = bufferIova(second);
    }
    // The device's write-back overlays this half: its status bits must be 0 until it is done (§7.1.6.2).
    store<u64>(descriptor, header, 8);
    tail = (tail + 1) & mask;
  }
  if (descriptors != 0) {
    store<u32>(state, tail, A_TAIL);
    doorbell(queue, tail);
  }
  return descriptors * each;
}

/** Reports up to `max` filled buffers, whole frames, in LIST_RX; answers how many. */
export function rx(pair: u32, max: u32): u32 {
  const queue = pair * 2;
  const state = stateOf(queue);
  const tail = load<u32>(state, A_TAIL);
  let clean = load<u32>(state, A_CLEAN);
  let n: u32 = 0;
  while (clean != tail) {
    const buffers = frameLength(queue, clean, tail);
    if (buffers == 0 || n + buffers * 2 > max) break;
    let good: u32 = (lastStatus & (ADV_RXD_STAT_L4I | ADV_RXD_ERR_L4E)) == goodChecksum && goodChecksum != 0
      ? ENTRY_CSUM_VALID
      : 0;
    for (let i: u32 = 0; i < buffers; i++) {
      const descriptor = descriptorOf(queue, clean);
      const info = <u32> load<u64>(descriptor);
      const meta = load<u64>(descriptor, 8);
      if (headerBytes != 0) {
        const split = info & ADV_RXD_SPH ? (info >> ADV_RXD_HDRLEN_SHIFT) & ADV_RXD_HDRLEN_MASK : 0;
        report(n++, load<u32>(headerMapOf(queue, clean)), split, good);
        good = 0;
      }
      const flags = good | (i + 1 == buffers ? ENTRY_EOP : 0);
      report(n++, load<u32>(mapOf(queue, clean)), <u32> (meta >> 32) & 0xffff, flags);
      good = 0;
      clean = (clean + 1) & mask;
    }
  }
  store<u32>(state, clean, A_CLEAN);
  return n;
}

/** What the last descriptor of the frame that was measured last says. */
let lastStatus: u32 = 0;

/** Descriptors of the frame at `from`, 0 if the device has not finished it. */
function frameLength(queue: u32, from: u32, tail: u32): u32 {
  let index = from;
  for (let n: u32 = 1; n <= CHAIN_MAX && index != tail; n++) {
    const status = atomic.load<u32>(descriptorOf(queue, index) + 8);
    // With split headers this half held an address until now, which is an even one.
    if ((status & ADV_RXD_STAT_DD) == 0) return 0;
    if (status & ADV_RXD_STAT_EOP) {
      lastStatus = status;
      return n;
    }
    index = (index + 1) & mask;
  }
  return 0;
}

@inline
function report(place: u32, buffer: u32, length: u32, flags: u32): void {
  const entry = LIST_RX + place * ENTRY_BYTES;
  store<u32>(entry, buffer, ENTRY_BUFFER);
  store<u32>(entry, 0, ENTRY_OFFSET);
  store<u32>(entry, min(length, <u32> PLUGIN_BUFFER_BYTES), ENTRY_LENGTH);
  store<u32>(entry, flags, ENTRY_FLAGS);
}

/** Asks for an interrupt when something comes in on `pair`; 1 if something has already. */
export function arm(pair: u32): u32 {
  const queue = pair * 2;
  const state = stateOf(queue);
  atomic.store<u32>(registersOf(queue) + ADV_REG_INTERRUPT, 1);
  return frameLength(queue, load<u32>(state, A_CLEAN), load<u32>(state, A_TAIL));
}

/** No interrupts: the shell polls. */
export function disarm(pair: u32): void {
  atomic.store<u32>(registersOf(pair * 2) + ADV_REG_INTERRUPT, 0);
}
