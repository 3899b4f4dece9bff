/**
 * The plugin between a shell and a device that are both this test's: no fabric is needed. The device reads and writes the
 * rings as the NIC does, and the shell's books say who has each buffer.
 */
import { deepStrictEqual as equals, ok } from "node:assert/strict";
import * as A from "../../../shared/layout/advanced.ts";
import * as P from "../../../shared/layout/plugin.ts";

const RING_SIZE = 16;
const [RX, TX] = [0, 1];
/** How the device addresses rings and buffers: beyond 32 bits, so that nothing may be cut off. */
const RINGS_IOVA = 0x10_0000_0000n;
const BUFFERS_IOVA = 0x7f_ff00_0000n;

const module = new WebAssembly.Module(Deno.readFileSync(new URL("plugin.wasm", import.meta.url)));

interface Plugin {
  abi(): number;
  start(): number;
  tx(pair: number, count: number): number;
  txDone(pair: number, max: number): number;
  post(pair: number, count: number): number;
  rx(pair: number, max: number): number;
  arm(pair: number): number;
  disarm(pair: number): void;
}

/** A frame of which no two bytes beside each other are the same. */
const frameOf = (length: number, seed: number) => Uint8Array.from({ length }, (_, i) => (i * 7 + seed) & 0xff);

/** The shell and the device around one plugin with one queue pair. */
class World {
  readonly plugin: Plugin;
  readonly kicks: number[] = [];
  readonly #view: DataView;
  readonly #bytes: Uint8Array;
  /** The device: where it is in each ring. */
  readonly #heads = [0, 0];
  /** The shell: who has which buffer. */
  #free = Array.from({ length: P.PLUGIN_BUFFER_COUNT }, (_, i) => i);
  readonly sending = new Set<number>();
  readonly posted = new Set<number>();

  constructor() {
    const pages = P.PLUGIN_MEMORY_BYTES / 65536;
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    this.#view = new DataView(memory.buffer);
    this.#bytes = new Uint8Array(memory.buffer);
    this.#view.setUint32(P.PLUGIN_STATE + P.PC_QUEUE_PAIRS, 1, true);
    this.#view.setUint32(P.PLUGIN_STATE + P.PC_RING_SIZE, RING_SIZE, true);
    this.#view.setBigUint64(P.PLUGIN_STATE + P.PC_RINGS_IOVA, RINGS_IOVA, true);
    this.#view.setBigUint64(P.PLUGIN_STATE + P.PC_BUFFERS_IOVA, BUFFERS_IOVA, true);
    const shell = { notify: (queue: number) => this.kicks.push(queue) };
    this.plugin = new WebAssembly.Instance(module, { env: { memory }, shell }).exports as unknown as Plugin;
    equals(this.plugin.start(), 0, "the plugin starts");
  }

  // The shell ----------------------------------------------------------------------------------------------------

  /** Has the plugin send frames, in buffers of at most `each` bytes; answers how many entries it took. */
  send(frames: Uint8Array[], each = 1024): number {
    const entries = frames.flatMap((frame) => {
      const starts = Array.from({ length: Math.ceil(frame.length / each) }, (_, i) => i * each);
      return starts.map((at) => ({ bytes: frame.subarray(at, at + each), last: at + each >= frame.length }));
    });
    entries.forEach(({ bytes, last }, i) => {
      const buffer = this.#free[i] as number;
      this.#bytes.set(bytes, P.PLUGIN_BUFFERS + buffer * P.PLUGIN_BUFFER_BYTES + P.TX_HEADROOM);
      const words = [buffer, P.TX_HEADROOM, bytes.length, last ? P.ENTRY_EOP : 0];
      words.forEach((word, k) => this.#view.setUint32(P.LIST_TX + i * P.ENTRY_BYTES + k * 4, word, true));
    });
    const taken = this.plugin.tx(0, entries.length);
    ok(taken <= entries.length && (taken === 0 || entries[taken - 1]?.last), `tx took ${taken}: half a frame`);
    for (const buffer of this.#free.splice(0, taken)) this.sending.add(buffer);
    return taken;
  }

  /** Takes back what has been sent; answers how many buffers. */
  done(max = P.LIST_MAX): number {
    const n = this.plugin.txDone(0, max);
    ok(n <= max, `txDone reported ${n} of at most ${max}`);
    for (let i = 0; i < n; i++) this.#giveBack(this.sending, this.#view.getUint32(P.LIST_DONE + i * 4, true));
    return n;
  }

  /** Gives the plugin buffers to be filled; answers how many it took. */
  post(count: number): number {
    for (let i = 0; i < count; i++) this.#view.setUint32(P.LIST_POST + i * 4, this.#free[i] as number, true);
    const taken = this.plugin.post(0, count);
    ok(taken <= count, `post took ${taken} of ${count}`);
    for (const buffer of this.#free.splice(0, taken)) this.posted.add(buffer);
    return taken;
  }

  /** Takes in what has come, as whole frames. */
  receive(max = P.LIST_MAX): number[][] {
    const n = this.plugin.rx(0, max);
    ok(n <= max, `rx reported ${n} of at most ${max}`);
    const frames: number[][] = [];
    let frame: number[] = [];
    for (let i = 0; i < n; i++) {
      const word = (offset: number) => this.#view.getUint32(P.LIST_RX + i * P.ENTRY_BYTES + offset, true);
      const buffer = word(P.ENTRY_BUFFER);
      this.#giveBack(this.posted, buffer);
      const at = P.PLUGIN_BUFFERS + buffer * P.PLUGIN_BUFFER_BYTES + word(P.ENTRY_OFFSET);
      frame.push(...this.#bytes.subarray(at, at + word(P.ENTRY_LENGTH)));
      if ((word(P.ENTRY_FLAGS) & P.ENTRY_EOP) === 0) continue;
      frames.push(frame);
      frame = [];
    }
    equals(frame.length, 0, "half a frame was reported");
    return frames;
  }

  #giveBack(from: Set<number>, buffer: number): void {
    ok(from.delete(buffer), `buffer ${buffer} is reported, which the plugin did not have`);
    this.#free.push(buffer);
  }

  // The device ---------------------------------------------------------------------------------------------------

  register(queue: number, offset: number): number {
    return P.PLUGIN_DOORBELLS + queue * A.ADV_REGISTER_STRIDE + offset;
  }

  /** The device sleeps: it wants to be kicked after the next doorbell. */
  sleep(queue: number): void {
    this.#view.setUint32(this.register(queue, A.ADV_REG_ARMED), 1, true);
  }

  get interruptWanted(): boolean {
    return this.#view.getUint32(this.register(RX, A.ADV_REG_INTERRUPT), true) === 1;
  }

  /** The next descriptor that is the device's, if there is one, and the buffer that it names. */
  #next(queue: number): { descriptor: number; buffer: number } | undefined {
    const head = this.#heads[queue] as number;
    if (head === this.#view.getUint32(this.register(queue, A.ADV_REG_TAIL), true)) return undefined;
    const table = P.PLUGIN_QUEUES + queue * P.PLUGIN_QUEUE_STRIDE;
    equals(this.#view.getUint32(table + P.PQ_SIZE, true), RING_SIZE);
    const ring = Number(this.#view.getBigUint64(table + P.PQ_DESC, true) - RINGS_IOVA) + P.PLUGIN_RINGS;
    this.#heads[queue] = (head + 1) % RING_SIZE;
    const descriptor = ring + head * A.ADV_DESC_BYTES;
    const buffer = Number(this.#view.getBigUint64(descriptor, true) - BUFFERS_IOVA) + P.PLUGIN_BUFFERS;
    ok(buffer >= P.PLUGIN_BUFFERS && buffer < P.PLUGIN_MEMORY_BYTES, "a descriptor names no buffer");
    return { descriptor, buffer };
  }

  /** The device sends all that is in the transmit ring; answers the frames. */
  transmitted(): number[][] {
    const frames: number[][] = [];
    let frame: number[] = [];
    for (let next = this.#next(TX); next; next = this.#next(TX)) {
      const command = this.#view.getUint32(next.descriptor + 8, true);
      equals(command & A.ADV_TXD_DTYP_MASK, A.ADV_TXD_DTYP_DATA, "a data descriptor");
      frame.push(...this.#bytes.subarray(next.buffer, next.buffer + (command & A.ADV_TXD_DTALEN_MASK)));
      if ((command & A.ADV_TXD_DCMD_EOP) === 0) continue;
      frames.push(frame);
      frame = [];
    }
    equals(frame.length, 0, "half a frame is in the ring");
    this.#view.setUint32(this.register(TX, A.ADV_REG_HEAD), this.#heads[TX] as number, true);
    return frames;
  }

  /** A frame comes in from the wire; answers whether there were buffers for it. */
  arrives(frame: Uint8Array): boolean {
    for (let at = 0; at < frame.length; at += P.PLUGIN_BUFFER_BYTES) {
      const next = this.#next(RX);
      if (!next) return false;
      const part = frame.subarray(at, at + P.PLUGIN_BUFFER_BYTES);
      const end = at + part.length === frame.length ? A.ADV_RXD_STAT_EOP : 0;
      this.#bytes.set(part, next.buffer);
      this.#view.setBigUint64(next.descriptor, 0n, true);
      this.#view.setUint32(next.descriptor + 12, part.length, true);
      this.#view.setUint32(next.descriptor + 8, A.ADV_RXD_STAT_DD | end, true);
    }
    return true;
  }
}

Deno.test("it is for this ABI, and asks for no more than a shell has", () => {
  equals(new World().plugin.abi(), P.PLUGIN_ABI);
  equals(WebAssembly.Module.imports(module).map(({ module, name }) => `${module}.${name}`).sort(), [
    "env.memory",
    "shell.notify",
  ]);
});

Deno.test("what the shell sends reaches the device as it is, and every buffer comes back once", () => {
  const world = new World();
  // Often enough to go round the ring many times, with frames in one buffer and in two.
  for (let round = 0; round < 50; round++) {
    const frames = [60, 1500, 1024].map((length, i) => frameOf(length, round + i));
    equals(world.send(frames), 4);
    equals(world.done(), 0, "the device has sent nothing yet");
    equals(world.transmitted(), frames.map((frame) => [...frame]));
    equals([world.done(), world.sending.size], [4, 0]);
  }
});

Deno.test("a full transmit ring takes whole frames, and more when there is room", () => {
  const world = new World();
  const frames = Array.from({ length: RING_SIZE }, (_, i) => frameOf(1500, i));
  // Two buffers each, and one descriptor stays free.
  equals(world.send(frames), RING_SIZE - 2);
  equals(world.send(frames), 0);
  equals(world.transmitted().length, RING_SIZE / 2 - 1);
  // Three places and the one that had stayed free: two frames.
  equals(world.done(3), 3);
  equals(world.send(frames), 4);
});

Deno.test("what comes in is reported whole and in order, and every buffer comes back once", () => {
  const world = new World();
  for (let round = 0; round < 50; round++) {
    world.post(RING_SIZE);
    equals(world.receive(), [], "nothing has come yet");
    const frames = [60, 4000, 1500].map((length, i) => frameOf(length, round + i));
    for (const frame of frames) ok(world.arrives(frame));
    equals(world.receive(), frames.map((frame) => [...frame]));
  }
  equals(world.posted.size, RING_SIZE - 1 - 4);
});

Deno.test("half a frame is not reported, nor more than is asked for", () => {
  const world = new World();
  equals(world.post(3), 3);
  for (const length of [60, 61]) ok(world.arrives(frameOf(length, 1)));
  ok(!world.arrives(frameOf(4000, 1)));
  equals(world.receive(2).length, 1);
  equals(world.receive().length, 1);
  equals(world.receive().length, 0);
});

Deno.test("a device that sleeps is kicked, and one that is awake is not", () => {
  const world = new World();
  world.send([frameOf(60, 1)]);
  world.post(1);
  equals(world.kicks, []);
  for (const queue of [RX, TX]) world.sleep(queue);
  world.send([frameOf(60, 2)]);
  world.post(1);
  equals(world.kicks, [TX, RX]);
});

Deno.test("an interrupt is asked for when nothing has come, and no longer while the shell polls", () => {
  const world = new World();
  world.post(2);
  equals([world.plugin.arm(0), world.interruptWanted], [0, true]);
  world.plugin.disarm(0);
  equals(world.interruptWanted, false);
  world.arrives(frameOf(60, 1));
  ok(world.plugin.arm(0) !== 0, "something has come already");
});
