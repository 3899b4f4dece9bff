/**
 * The plugin for hardware with advanced descriptor rings (82599 datasheet §7.1.6, §7.2.3): doorbells, write-back, head
 * write-back for transmit completions, and split headers. It may touch what the shell has mapped into its memory and
 * nothing else (docs/plugin-api.md); buffers are the shell's, named by number.
 *
 * With split headers each receive descriptor holds two buffers: the header goes to the second one, the payload to the
 * first, and a frame that is not split leaves the second one unused, to be given out again.
 */
import {
  ADV_DESC_BYTES,
  ADV_REG_ARMED,
  ADV_REG_HEAD,
  ADV_REG_INTERRUPT,
  ADV_REG_TAIL,
  ADV_REGISTER_STRIDE,
  ADV_RXD_HDRLEN_MASK,
  ADV_RXD_HDRLEN_SHIFT,
  ADV_RXD_SPH,
  ADV_RXD_STAT_DD,
  ADV_RXD_STAT_EOP,
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
  ENTRY_OFFSET,
  LIST_DONE,
  LIST_POST,
  LIST_RX,
  LIST_TX,
  PC_BUFFERS_IOVA,
  PC_HEADER_BYTES,
  PC_QUEUE_PAIRS,
  PC_RING_SIZE,
  PC_RINGS_IOVA,
  PLUGIN_ABI,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_DOORBELLS,
  PLUGIN_PRIVATE,
  PLUGIN_QUEUE_PAIRS_MAX,
  PLUGIN_QUEUE_STRIDE,
  PLUGIN_QUEUES,
  PLUGIN_RING_SIZE_MAX,
  PLUGIN_RING_STRIDE,
  PLUGIN_RINGS,
  PLUGIN_STATE,
  PQ_DESC,
  PQ_SIZE,
} from "../../../shared/layout/plugin.ts";

/** Kicks the device for a queue: the shell's one function. */
@external("shell", "notify")
declare function notify(queue: u32): void;

// A queue's own state: 64 bytes, then which buffer each descriptor holds, and its header buffer.
const A_TAIL: u32 = 0;
const A_CLEAN: u32 = 4;
const STATE_STRIDE: u32 = 64;
const MAPS: usize = PLUGIN_PRIVATE + 0x1000;
const MAP_STRIDE: u32 = PLUGIN_RING_SIZE_MAX * 4;
const HEADER_MAPS: usize = MAPS + MAP_STRIDE * 32;
/** Descriptors of one frame that a driver looks ahead for. */
const CHAIN_MAX: u32 = 40;

let mask: u32 = 0;
let headerBytes: u32 = 0;
let buffersIova: u64 = 0;

@inline
function stateOf(queue: u32): usize {
  return PLUGIN_PRIVATE + queue * STATE_STRIDE;
}

@inline
function descriptorOf(queue: u32, index: u32): usize {
  return PLUGIN_RINGS + queue * PLUGIN_RING_STRIDE + index * ADV_DESC_BYTES;
}

@inline
function mapOf(queue: u32, index: u32): usize {
  return MAPS + queue * MAP_STRIDE + index * 4;
}

/** Receive queues have the even numbers: one map for each pair. */
@inline
function headerMapOf(queue: u32, index: u32): usize {
  return HEADER_MAPS + (queue >> 1) * MAP_STRIDE + index * 4;
}

@inline
function registersOf(queue: u32): usize {
  return PLUGIN_DOORBELLS + queue * ADV_REGISTER_STRIDE;
}

@inline
function bufferIova(buffer: u32): u64 {
  return buffersIova + <u64> (buffer * PLUGIN_BUFFER_BYTES);
}

export function abi(): u32 {
  return PLUGIN_ABI;
}

/** Lays out the rings that the configuration asks for and names them; 0, or -1 if it asks for what cannot be. */
export function start(): i32 {
  const pairs = load<u32>(PLUGIN_STATE, PC_QUEUE_PAIRS);
  const size = load<u32>(PLUGIN_STATE, PC_RING_SIZE);
  if (pairs == 0 || pairs > <u32> PLUGIN_QUEUE_PAIRS_MAX) return -1;
  if (size < 8 || size > <u32> PLUGIN_RING_SIZE_MAX || (size & (size - 1)) != 0) return -1;
  mask = size - 1;
  headerBytes = load<u32>(PLUGIN_STATE, PC_HEADER_BYTES);
  buffersIova = load<u64>(PLUGIN_STATE, PC_BUFFERS_IOVA);
  for (let queue: u32 = 0; queue < pairs * 2; queue++) {
    memory.fill(PLUGIN_RINGS + queue * PLUGIN_RING_STRIDE, 0, PLUGIN_RING_STRIDE);
    memory.fill(stateOf(queue), 0, STATE_STRIDE);
    memory.fill(registersOf(queue), 0, ADV_REGISTER_STRIDE);
    const out = PLUGIN_QUEUES + queue * PLUGIN_QUEUE_STRIDE;
    store<u64>(out, load<u64>(PLUGIN_STATE, PC_RINGS_IOVA) + queue * PLUGIN_RING_STRIDE, PQ_DESC);
    store<u32>(out, size, PQ_SIZE);
  }
  return 0;
}

/** Ends it. The shell takes back every buffer. */
export function stop(): void {
}

/** Moves the tail, and kicks the device if it sleeps. */
function doorbell(queue: u32, tail: u32): void {
  const registers = registersOf(queue);
  atomic.store<u32>(registers + ADV_REG_TAIL, tail);
  if (atomic.load<u32>(registers + ADV_REG_ARMED)) notify(queue);
}

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
    if (buffers > free) break;
    for (let i: u32 = 0; i < buffers; i++, taken++) {
      const entry = LIST_TX + taken * ENTRY_BYTES;
      const buffer = load<u32>(entry, ENTRY_BUFFER) & (PLUGIN_BUFFER_COUNT - 1);
      const command: u32 = ADV_TXD_DTYP_DATA | ADV_TXD_DCMD_DEXT | ADV_TXD_DCMD_IFCS |
        (i + 1 == buffers ? ADV_TXD_DCMD_EOP : 0);
      const total: u64 = i == 0 ? <u64> bytes << (ADV_TXD_PAYLEN_SHIFT + 32) : 0;
      const descriptor = descriptorOf(queue, tail);
      store<u64>(descriptor, bufferIova(buffer) + load<u32>(entry, ENTRY_OFFSET));
      store<u64>(descriptor, <u64> (command | (load<u32>(entry, ENTRY_LENGTH) & 0xffff)) | total, 8);
      store<u32>(mapOf(queue, tail), buffer);
      tail = (tail + 1) & mask;
    }
    free -= buffers;
  }
  return finishTx(queue, taken, tail);
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
  while (clean != head && done < max) {
    store<u32>(LIST_DONE + done * 4, load<u32>(mapOf(queue, clean)));
    clean = (clean + 1) & mask;
    done++;
  }
  store<u32>(state, clean, A_CLEAN);
  return done;
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
    for (let i: u32 = 0; i < buffers; i++) {
      const descriptor = descriptorOf(queue, clean);
      const info = <u32> load<u64>(descriptor);
      const meta = load<u64>(descriptor, 8);
      if (headerBytes != 0) {
        const split = info & ADV_RXD_SPH ? (info >> ADV_RXD_HDRLEN_SHIFT) & ADV_RXD_HDRLEN_MASK : 0;
        report(n++, load<u32>(headerMapOf(queue, clean)), split, 0);
      }
      report(n++, load<u32>(mapOf(queue, clean)), <u32> (meta >> 32) & 0xffff, i + 1 == buffers ? ENTRY_EOP : 0);
      clean = (clean + 1) & mask;
    }
  }
  store<u32>(state, clean, A_CLEAN);
  return n;
}

/** Descriptors of the frame at `from`, 0 if the device has not finished it. */
function frameLength(queue: u32, from: u32, tail: u32): u32 {
  let index = from;
  for (let n: u32 = 1; n <= CHAIN_MAX && index != tail; n++) {
    const status = atomic.load<u32>(descriptorOf(queue, index) + 8);
    // With split headers this half held an address until now; the device's write-back has DD and a status above 3 never.
    if ((status & ADV_RXD_STAT_DD) == 0) return 0;
    if (status & ADV_RXD_STAT_EOP) return n;
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
