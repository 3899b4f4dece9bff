/** Where a queue's ring, registers and books lie in the plugin's memory. */
import {
  ADV_DESC_BYTES,
  ADV_REG_ARMED,
  ADV_REG_TAIL,
  ADV_REGISTER_STRIDE,
} from "../../../shared/layout/advanced.ts";
import {
  PC_BUFFERS_IOVA,
  PC_RINGS_IOVA,
  PLUGIN_BUFFER_BYTES,
  PLUGIN_DOORBELLS,
  PLUGIN_PRIVATE,
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

// A queue's own state: 64 bytes (offload.ts has its part from 8 on), then which buffer each descriptor holds, and its
// header buffer.
export const A_TAIL: u32 = 0;
export const A_CLEAN: u32 = 4;
const STATE_STRIDE: u32 = 64;
const MAPS: usize = PLUGIN_PRIVATE + 0x1000;
const MAP_STRIDE: u32 = PLUGIN_RING_SIZE_MAX * 4;
const HEADER_MAPS: usize = MAPS + MAP_STRIDE * 32;

/** Descriptors of a ring, less one. */
export let mask: u32 = 0;
let buffersIova: u64 = 0;

@inline
export function stateOf(queue: u32): usize {
  return PLUGIN_PRIVATE + queue * STATE_STRIDE;
}

@inline
export function descriptorOf(queue: u32, index: u32): usize {
  return PLUGIN_RINGS + queue * PLUGIN_RING_STRIDE + index * ADV_DESC_BYTES;
}

@inline
export function mapOf(queue: u32, index: u32): usize {
  return MAPS + queue * MAP_STRIDE + index * 4;
}

/** Receive queues have the even numbers: one map for each pair. */
@inline
export function headerMapOf(queue: u32, index: u32): usize {
  return HEADER_MAPS + (queue >> 1) * MAP_STRIDE + index * 4;
}

@inline
export function registersOf(queue: u32): usize {
  return PLUGIN_DOORBELLS + queue * ADV_REGISTER_STRIDE;
}

@inline
export function bufferIova(buffer: u32): u64 {
  return buffersIova + <u64> (buffer * PLUGIN_BUFFER_BYTES);
}

/** Lays out and names the rings of `queues` queues, of `size` descriptors each. */
export function layOut(queues: u32, size: u32): void {
  mask = size - 1;
  buffersIova = load<u64>(PLUGIN_STATE, PC_BUFFERS_IOVA);
  for (let queue: u32 = 0; queue < queues; queue++) {
    memory.fill(PLUGIN_RINGS + queue * PLUGIN_RING_STRIDE, 0, PLUGIN_RING_STRIDE);
    memory.fill(stateOf(queue), 0, STATE_STRIDE);
    memory.fill(registersOf(queue), 0, ADV_REGISTER_STRIDE);
    const out = PLUGIN_QUEUES + queue * PLUGIN_QUEUE_STRIDE;
    store<u64>(out, load<u64>(PLUGIN_STATE, PC_RINGS_IOVA) + queue * PLUGIN_RING_STRIDE, PQ_DESC);
    store<u32>(out, size, PQ_SIZE);
  }
}

/** Moves the tail, and kicks the device if it sleeps. */
export function doorbell(queue: u32, tail: u32): void {
  const registers = registersOf(queue);
  atomic.store<u32>(registers + ADV_REG_TAIL, tail);
  if (atomic.load<u32>(registers + ADV_REG_ARMED)) notify(queue);
}
