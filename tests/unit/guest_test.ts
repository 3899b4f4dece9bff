/** The guest's bookkeeping, which no plugin can bend: its Wasm, with this test in the place of the worker and plugin. */
import { assert, assertEquals } from "@std/assert";
import {
  AREA_EXCHANGE,
  BUFFER_OWNERS,
  FREE_STACK,
  GC,
  GC_CAPTURE,
  GC_CAPTURE_HEAD,
  GC_FREE_COUNT,
  GC_LINK,
  GC_PAIRS,
  GC_PATH,
  GC_QUEUE_PAIRS,
  GC_RX_WANTED,
  GUEST_RAM_BYTES_MIN,
  PAIR_TX_IN,
  PING_NEXT_NS,
  PING_STATE,
  PING_WANTED,
  PINGS,
  PLUGIN_AREA,
  STATE_DONE,
  STATE_RUNNING,
  TX_QUEUES,
} from "../../shared/layout/guest.ts";
import {
  ENTRY_BUFFER,
  ENTRY_BYTES,
  ENTRY_EOP,
  ENTRY_FLAGS,
  ENTRY_LENGTH,
  LIST_POST,
  LIST_RX,
  PLUGIN_BUFFER_COUNT,
  PLUGIN_EXCHANGE,
} from "../../shared/layout/plugin.ts";
import { createMemfd, WasmMemory } from "../../shared/os/mod.ts";
import { loadWasm } from "../../shared/wasm/load.ts";

interface Exports {
  boot(): void;
  poll(now: number): number;
  prepareTx(pair: number): number;
  txAccepted(pair: number, n: number): number;
  preparePost(pair: number): number;
  posted(pair: number, n: number, taken: number): void;
  received(pair: number, n: number): number;
}

const list = (at: number) => PLUGIN_AREA + AREA_EXCHANGE + at - PLUGIN_EXCHANGE;

/** A guest that has booted, whose injected plugin's path is in use. */
async function booted() {
  using ram = createMemfd("ringfabric-test", GUEST_RAM_BYTES_MIN);
  const memory = new WasmMemory(GUEST_RAM_BYTES_MIN);
  memory.map(0, ram.number, 0, GUEST_RAM_BYTES_MIN);
  const imports = { env: { memory: memory.memory } };
  const exports = new WebAssembly.Instance(await loadWasm("guest"), imports).exports as unknown as Exports;
  exports.boot();
  const { view } = memory;
  const set = (at: number, value: number) => view.setUint32(at, value, true);
  const get = (at: number) => view.getUint32(at, true);
  set(GC + GC_PATH, 1);
  set(GC + GC_QUEUE_PAIRS, 1);
  set(GC + GC_RX_WANTED, 64);
  set(GC + GC_LINK, 1);
  const freeBuffers = () => {
    const n = get(GC + GC_FREE_COUNT);
    return new Set(Array.from({ length: n }, (_, i) => get(FREE_STACK + i * 4)));
  };
  return { memory, exports, set, get, freeBuffers };
}

Deno.test("a plugin that rewrites the list of buffers it was given frees none but those", async () => {
  const { memory, exports, set, get, freeBuffers } = await booted();
  const n = exports.preparePost(0);
  assertEquals(n, 64);
  const before = memory.buffer.slice(0);
  for (let i = 0; i < n; i++) set(list(LIST_POST) + i * 4, 0x1000000 - BUFFER_OWNERS + i * 0x1111);
  exports.posted(0, n, 10);
  const free = freeBuffers();
  assertEquals([get(GC + GC_FREE_COUNT), free.size], [PLUGIN_BUFFER_COUNT - 10, PLUGIN_BUFFER_COUNT - 10]);
  assert([...free].every((buffer) => buffer < PLUGIN_BUFFER_COUNT), "every number is one of a buffer");
  const owners = new Uint8Array(memory.buffer, BUFFER_OWNERS, PLUGIN_BUFFER_COUNT);
  assertEquals(owners.filter((owner) => owner !== 0).length, 10);
  const beyond = new Uint8Array(before, 0x1000000, 0x100000);
  assertEquals(new Uint8Array(memory.buffer, 0x1000000, 0x100000), beyond as Uint8Array);
});

Deno.test("half a frame is not taken", async () => {
  const { exports, set } = await booted();
  for (const i of [0, 1]) {
    set(TX_QUEUES + i * ENTRY_BYTES + ENTRY_BUFFER, i);
    set(TX_QUEUES + i * ENTRY_BYTES + ENTRY_LENGTH, 1000);
    set(TX_QUEUES + i * ENTRY_BYTES + ENTRY_FLAGS, i === 1 ? ENTRY_EOP : 0);
  }
  set(GC + GC_PAIRS + PAIR_TX_IN, 2);
  assertEquals(exports.prepareTx(0), 2);
  assertEquals([exports.txAccepted(0, 1), exports.txAccepted(0, 2)], [0, 1]);
});

Deno.test("a frame without bytes is not captured: a record of length 0 says something else", async () => {
  const { exports, set, get } = await booted();
  set(GC + GC_CAPTURE, 1);
  exports.preparePost(0);
  const buffer = get(list(LIST_POST));
  exports.posted(0, 64, 64);
  set(list(LIST_RX) + ENTRY_BUFFER, buffer);
  set(list(LIST_RX) + ENTRY_LENGTH, 0);
  set(list(LIST_RX) + ENTRY_FLAGS, ENTRY_EOP);
  assertEquals([exports.received(0, 1), get(GC + GC_CAPTURE_HEAD)], [1, 0]);
});

Deno.test("a ping ends without a link", async () => {
  const { memory, exports, set, get } = await booted();
  set(GC + GC_LINK, 0);
  set(PINGS + PING_WANTED, 1);
  memory.view.setFloat64(PINGS + PING_NEXT_NS, 1, true);
  set(PINGS + PING_STATE, STATE_RUNNING);
  exports.poll(1);
  exports.poll(1e9);
  exports.poll(2e9);
  assertEquals(get(PINGS + PING_STATE), STATE_DONE);
});
