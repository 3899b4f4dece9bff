/** Frames to the device, and buffers back from it (82599 datasheet §7.2.3). */
import {
  ADV_REG_HEAD,
  ADV_TXD_DCMD_DEXT,
  ADV_TXD_DCMD_EOP,
  ADV_TXD_DCMD_IFCS,
  ADV_TXD_DTYP_DATA,
  ADV_TXD_PAYLEN_SHIFT,
} from "../../../shared/layout/advanced.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  ENTRY_NET_HDR,
  ENTRY_OFFSET,
  LIST_DONE,
  LIST_TX,
  NO_BUFFER,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_BUFFERS,
} from "../../../shared/layout/plugin.ts";
import * as O from "./offload.ts";
import { A_CLEAN, A_TAIL, bufferIova, descriptorOf, doorbell, mapOf, mask, registersOf, stateOf } from "./rings.ts";

/** Puts `count` entries of LIST_TX, whole frames, into the ring of `pair`; answers how many it took. */
export function tx(pair: u32, count: u32): u32 {
  const queue = pair * 2 + 1;
  const state = stateOf(queue);
  let tail = load<u32>(state, A_TAIL);
  let free = (load<u32>(state, A_CLEAN) - tail - 1) & mask;
  let taken: u32 = 0;
  while (taken < count) {
    let buffers: u32 = 0;
    let bytes: u32 = 0;
    let last: u32 = 0;
    while (last == 0) {
      if (taken + buffers == count) return finishTx(queue, taken, tail);
      const entry = LIST_TX + (taken + buffers++) * ENTRY_BYTES;
      bytes += load<u32>(entry, ENTRY_LENGTH);
      last = load<u32>(entry, ENTRY_FLAGS) & ENTRY_EOP;
    }
    const first = LIST_TX + taken * ENTRY_BYTES;
    const asks = (load<u32>(first, ENTRY_FLAGS) & ENTRY_NET_HDR) != 0;
    let contexts: u32 = 0;
    if (asks) contexts = O.lookAt(state, placeOf(first));
    else O.asksNothing();
    if (contexts + buffers > free) break;
    if (contexts != 0) {
      O.writeContext(state, descriptorOf(queue, tail));
      store<u32>(mapOf(queue, tail), NO_BUFFER);
      tail = (tail + 1) & mask;
    }
    if (asks) O.takeLengthOut(placeOf(first), bytes);
    writeFrame(queue, first, tail, bytes);
    tail = (tail + buffers) & mask;
    taken += buffers;
    free -= contexts + buffers;
  }
  return finishTx(queue, taken, tail);
}

/** Where an entry's bytes lie. */
@inline
function placeOf(entry: usize): usize {
  const buffer = load<u32>(entry, ENTRY_BUFFER) & (PLUGIN_BUFFER_COUNT - 1);
  return PLUGIN_BUFFERS + buffer * PLUGIN_BUFFER_BYTES + (load<u32>(entry, ENTRY_OFFSET) & (PLUGIN_BUFFER_BYTES - 1));
}

/** Writes the descriptors of a frame of `bytes` bytes, whose entries begin at `entries`, from ring position `tail` on. */
@inline
function writeFrame(queue: u32, entries: usize, tail: u32, bytes: u32): void {
  const common: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS | O.command;
  let word = <u64> (O.status | ((bytes - O.headerBytes) << ADV_TXD_PAYLEN_SHIFT)) << 32;
  for (let entry = entries, i = tail, last: u32 = 0; last == 0; entry += ENTRY_BYTES, i = (i + 1) & mask) {
    last = load<u32>(entry, ENTRY_FLAGS) & ENTRY_EOP;
    const buffer = load<u32>(entry, ENTRY_BUFFER) & (PLUGIN_BUFFER_COUNT - 1);
    const descriptor = descriptorOf(queue, i);
    const command: u32 = common | (last != 0 ? ADV_TXD_DCMD_EOP : 0) | (load<u32>(entry, ENTRY_LENGTH) & 0xffff);
    store<u64>(descriptor, bufferIova(buffer) + load<u32>(entry, ENTRY_OFFSET));
    store<u64>(descriptor, <u64> command | word, 8);
    store<u32>(mapOf(queue, i), buffer);
    word = 0;
  }
}

function finishTx(queue: u32, taken: u32, tail: u32): u32 {
  if (taken == 0) return 0;
  store<u32>(stateOf(queue), tail, A_TAIL);
  doorbell(queue, tail);
  return taken;
}

/** Reports up to `max` buffers that the device has sent, in LIST_DONE; answers how many. */
export function txDone(pair: u32, max: u32): u32 {
  const queue = pair * 2 + 1;
  const state = stateOf(queue);
  const head = atomic.load<u32>(registersOf(queue) + ADV_REG_HEAD) & mask;
  let clean = load<u32>(state, A_CLEAN);
  let done: u32 = 0;
  for (; clean != head && done < max; clean = (clean + 1) & mask) {
    const buffer = load<u32>(mapOf(queue, clean));
    // A context has none.
    if (buffer != NO_BUFFER) store<u32>(LIST_DONE + done++ * 4, buffer);
  }
  store<u32>(state, clean, A_CLEAN);
  return done;
}
