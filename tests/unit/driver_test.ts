/**
 * The drivers that the tests use, against a device of a few dozen lines that was written from the specification alone:
 * what the device reads is what the driver has offered, and what it returns comes back once, whatever the ring's size,
 * the chains and the batches.
 */
import fc from "fast-check";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MockGuest, SplitDriver } from "../support/mock_guest.ts";
import { baseAt, decodeBase, PackedDriver, PackedGuest } from "../support/packed_guest.ts";
import { DeviceLied, type Piece, type UsedBuffer, type Virtqueue } from "../support/virtqueue.ts";

const TABLES = 32768;

/** A buffer as a device reads it. */
interface Taken {
  id: number;
  pieces: Piece[];
  descriptors: number;
}

/** A device: takes the next buffer, and returns buffers, the last of which it names. */
interface Device {
  take(): Taken | undefined;
  giveBack(batch: readonly Taken[], len: number): void;
}

/** Reads {addr, len, two words} at `at`. */
function readDescriptor(view: DataView, at: number) {
  const [addr, len] = [view.getBigUint64(at, true), view.getUint32(at + 8, true)];
  return { addr, len, third: view.getUint16(at + 12, true), fourth: view.getUint16(at + 14, true) };
}

/** A device of packed rings. Its places count up for ever: place n is descriptor n % size, in lap n / size. */
class PackedDevice implements Device {
  readonly #ring: PackedDriver;
  taken: number;
  returned: number;

  constructor(ring: PackedDriver, place = 0) {
    this.#ring = ring;
    this.taken = this.returned = place;
  }

  #at(place: number): number {
    return this.#ring.desc + (place % this.#ring.size) * 16;
  }

  /** In laps 0, 2, 4 … the wrap counter is 1. */
  #wrap(place: number): number {
    return 1 - Math.floor(place / this.#ring.size) % 2;
  }

  take(): Taken | undefined {
    const { view } = this.#ring;
    const pieces: Piece[] = [];
    for (let place = this.taken;; place++) {
      const { addr, len, third: id, fourth: flags } = readDescriptor(view, this.#at(place));
      const isAvailable = (flags >> 7 & 1) === this.#wrap(place) && (flags >> 15) !== this.#wrap(place);
      if (!isAvailable) {
        assertEquals(place, this.taken, "a chain is there as a whole or not at all");
        return undefined;
      }
      if (flags & 4) {
        for (let at = Number(addr); at < Number(addr) + len; at += 16) {
          const entry = readDescriptor(view, at);
          pieces.push({ addr: entry.addr, len: entry.len, write: (entry.fourth & 2) !== 0 });
          assertEquals(entry.fourth & ~2, 0, "WRITE is an entry's only flag");
        }
      } else {
        pieces.push({ addr, len, write: (flags & 2) !== 0 });
      }
      if (flags & 1) continue;
      const descriptors = place + 1 - this.taken;
      this.taken = place + 1;
      return { id, pieces, descriptors };
    }
  }

  giveBack(batch: readonly Taken[], len: number): void {
    const { view } = this.#ring;
    const at = this.#at(this.returned);
    const last = batch.at(-1) as Taken;
    view.setUint32(at + 8, len, true);
    view.setUint16(at + 12, last.id, true);
    view.setUint16(at + 14, this.#wrap(this.returned) * 0x8080 | (len > 0 ? 2 : 0), true);
    for (const { descriptors } of batch) this.returned += descriptors;
  }
}

/** A device of split rings. */
class SplitDevice implements Device {
  readonly #ring: SplitDriver;
  #taken = 0;

  constructor(ring: SplitDriver) {
    this.#ring = ring;
  }

  take(): Taken | undefined {
    const { view, avail, desc, size } = this.#ring;
    if (view.getUint16(avail + 2, true) === this.#taken) return undefined;
    const id = view.getUint16(avail + 4 + this.#taken % size * 2, true);
    this.#taken = (this.#taken + 1) & 0xffff;
    const pieces: Piece[] = [];
    let [table, descriptors] = [desc, 0];
    for (let index = id;;) {
      const { addr, len, third: flags, fourth: next } = readDescriptor(view, table + index * 16);
      if (table === desc) descriptors++;
      if (flags & 4) [table, index] = [Number(addr), 0];
      else {
        pieces.push({ addr, len, write: (flags & 2) !== 0 });
        if ((flags & 1) === 0) return { id, pieces, descriptors };
        index = next;
      }
    }
  }

  giveBack(batch: readonly Taken[], len: number): void {
    const { view, used, size } = this.#ring;
    const index = view.getUint16(used + 2, true);
    view.setUint32(used + 4 + index % size * 8, batch.at(-1)?.id ?? 0, true);
    view.setUint32(used + 8 + index % size * 8, len, true);
    view.setUint16(used + 2, index + batch.length, true);
  }
}

type Step = { do: "add"; pieces: number; writable: boolean; indirect: boolean } | { do: "take" | "return"; n: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant("add" as const),
    pieces: fc.integer({ min: 1, max: 5 }),
    writable: fc.boolean(),
    indirect: fc.boolean(),
  }),
  fc.record({ do: fc.constantFrom("take" as const, "return" as const), n: fc.integer({ min: 1, max: 5 }) }),
);

/** Runs steps on a driver and its device, and keeps the books beside them. */
class Books {
  readonly #driver: Virtqueue;
  readonly #device: Device;
  readonly #isBatched: boolean;
  readonly #offered: { id: number; pieces: Piece[] }[] = [];
  #taken: Taken[] = [];
  readonly #due: UsedBuffer[] = [];
  /** Pieces have addresses that name them. */
  #address = 0x1000n;

  constructor(driver: Virtqueue, device: Device, isBatched: boolean) {
    this.#driver = driver;
    this.#device = device;
    this.#isBatched = isBatched;
  }

  run(step: Step): void {
    if (step.do === "add") this.#add(step);
    else if (step.do === "take") this.#take(step.n);
    else this.#return(step.n);
    this.#pop();
    const has = this.#offered.length + this.#taken.length;
    assertEquals(this.#driver.inFlight, has);
  }

  #add({ pieces, writable, indirect }: Extract<Step, { do: "add" }>): void {
    if (this.#driver.free < (indirect ? 1 : pieces)) return;
    const made = Array.from({ length: pieces }, (_, i) => ({ addr: this.#address++, len: i + 7, write: writable }));
    const at = TABLES + Number(this.#address % 256n) * 80;
    const id = this.#driver.add(made, indirect ? { at, iova: BigInt(at) } : undefined);
    const before = this.#offered.length;
    if (before === 0) assertEquals(this.#device.take(), undefined, "nothing is to be seen before it is published");
    this.#driver.publish();
    this.#offered.push({ id, pieces: made });
  }

  #take(n: number): void {
    for (let i = 0; i < n; i++) {
      const taken = this.#device.take();
      const expected = this.#offered.shift();
      assertEquals(taken && { id: taken.id, pieces: taken.pieces }, expected);
      if (taken) this.#taken.push(taken);
    }
  }

  #return(n: number): void {
    const batch = this.#taken.splice(0, n);
    if (batch.length === 0) return;
    const lengthOf = ({ pieces }: Taken) => pieces.reduce((sum, { len, write }) => sum + (write ? len : 0), 0);
    const all = batch.map((taken) => ({ id: taken.id, len: lengthOf(taken) }));
    if (this.#isBatched) {
      const last = all.at(-1) as UsedBuffer;
      last.len = Math.min(last.len, 3);
      this.#device.giveBack(batch, last.len);
      this.#due.push(...all);
      return;
    }
    // Out of order, one by one.
    batch.reverse().forEach((taken) => this.#device.giveBack([taken], lengthOf(taken)));
    this.#due.push(...all.reverse());
  }

  #pop(): void {
    for (let used = this.#driver.popUsed(); used; used = this.#driver.popUsed()) {
      assertEquals(used, this.#due.shift());
    }
    assertEquals(this.#due, []);
  }
}

const memory = () => new DataView(new ArrayBuffer(65536));

for (const inOrder of [false, true]) {
  const name = inOrder ? "in batches" : "out of order";
  Deno.test(`a packed ring of any size: every buffer reaches the device whole and comes back once, ${name}`, () => {
    const plan = fc.record({
      size: fc.integer({ min: 1, max: 9 }),
      steps: fc.array(step, { maxLength: 80, size: "max" }),
    });
    fc.assert(fc.property(plan, ({ size, steps }) => {
      const driver = new PackedDriver(memory(), 64, size, { inOrder });
      const device = new PackedDevice(driver);
      const books = new Books(driver, device, inOrder);
      for (const step of steps) books.run(step);
      const { avail, used } = decodeBase(driver.base);
      assertEquals(avail, used);
      assertEquals(used, { index: device.returned % size, wrap: Math.floor(device.returned / size) % 2 === 0 });
    }));
  });
  // The tests' split driver uses its descriptors in ring order, so its device must return them in that order.
  Deno.test(`a split ring: every buffer reaches the device whole and comes back once, ${inOrder ? name : "singly"}`, () => {
    const plan = fc.record({
      size: fc.constantFrom(1, 2, 4, 8),
      steps: fc.array(step, { maxLength: 80, size: "max" }),
    });
    fc.assert(fc.property(plan, ({ size, steps }) => {
      const driver = new SplitDriver(memory(), 64, size, { inOrder });
      const books = new Books(driver, new SplitDevice(driver), inOrder);
      for (const step of steps) books.run(inOrder || step.do !== "return" ? step : { ...step, n: 1 });
    }));
  });
}

Deno.test("a packed ring begins wherever it is told to, in either lap", () => {
  for (const size of [1, 5, 8]) {
    for (let place = 0; place < 2 * size; place++) {
      const driver = new PackedDriver(memory(), 0, size);
      const start = { index: place % size, wrap: place < size };
      assertEquals(driver.moveTo(start), baseAt(start));
      assertEquals(driver.popUsed(), undefined);
      const device = new PackedDevice(driver, place);
      assertEquals(device.take(), undefined);
      for (let i = 0; i < 3 * size; i++) {
        const id = driver.add([{ addr: BigInt(i), len: 5 }]);
        driver.publish();
        const taken = device.take() as Taken;
        assertEquals([taken.id, taken.pieces[0]?.addr], [id, BigInt(i)]);
        device.giveBack([taken], 0);
        assertEquals(driver.popUsed(), { id, len: 0 });
      }
    }
  }
});

Deno.test("a device that returns what it has not got is told so", () => {
  const packed = new PackedDriver(memory(), 0, 4);
  const device = new PackedDevice(packed);
  packed.add([{ addr: 0n, len: 1 }]);
  packed.add([{ addr: 1n, len: 1 }]);
  packed.publish();
  const [first, second] = [device.take() as Taken, device.take() as Taken];
  device.giveBack([first], 0);
  device.giveBack([first], 0);
  assertThrows(() => packed.popUsed(), DeviceLied, `returns buffer ${first.id}`);
  const split = new SplitDriver(memory(), 0, 4, { inOrder: true });
  const other = new SplitDevice(split);
  split.add([{ addr: 0n, len: 1 }]);
  split.publish();
  other.giveBack([{ ...second, id: 3 }], 0);
  assertThrows(() => split.popUsed(), DeviceLied, "names descriptor 3");
});

Deno.test("kicks: a packed driver kicks when the device asks, never when it asks for none, and at the very descriptor", () => {
  const size = 5;
  const driver = new PackedDriver(memory(), 0, size, { eventIdx: true });
  const device = new PackedDevice(driver);
  const event = (flags: number, place = 0) => {
    driver.view.setUint16(driver.used, place % size | (Math.floor(place / size) % 2 === 0 ? 0x8000 : 0), true);
    driver.view.setUint16(driver.used + 2, flags, true);
  };
  /** Sends `count` descriptors, which are returned at once. */
  const send = (count: number) => {
    driver.add(Array.from({ length: count }, () => ({ addr: 0n, len: 1 })));
    driver.publish();
    device.giveBack([device.take() as Taken], 0);
    driver.popUsed();
  };
  assertEquals(driver.takeKick(), false, "nothing was published");
  let place = 0;
  for (let round = 0; round < 40; round++) {
    const count = 1 + round % 3;
    event(0);
    send(count);
    assertEquals(driver.takeKick(), true);
    event(1);
    send(count);
    assertEquals(driver.takeKick(), false);
    place += 2 * count;
    for (let ahead = 0; ahead < count + 2; ahead++) {
      event(2, place + ahead);
      send(count);
      assertEquals(driver.takeKick(), ahead < count, `descriptor ${ahead} of ${count} at place ${place}`);
      place += count;
    }
  }
});

Deno.test("kicks: a split driver too", () => {
  const driver = new SplitDriver(memory(), 0, 4, { eventIdx: true });
  const plain = new SplitDriver(memory(), 0, 4);
  for (const one of [driver, plain]) {
    for (let i = 0; i < 2; i++) one.add([{ addr: 0n, len: 1 }]);
    one.publish();
  }
  driver.view.setUint16(driver.used + 4 + 32, 1, true);
  assertEquals([driver.takeKick(), driver.takeKick()], [true, false]);
  assertEquals([plain.takeKick(), plain.takeKick()], [true, false]);
  driver.view.setUint16(driver.used + 4 + 32, 3, true);
  plain.view.setUint16(plain.used, 1, true);
  for (const one of [driver, plain]) {
    one.offer(0);
    assertEquals(one.takeKick(), false);
  }
});

Deno.test("guests of both formats read frames out of any buffers, mergeable ones as num_buffers says", () => {
  const options = { offset: 0, bytes: 65536, iova: 0n, queueSize: 7, bufferBytes: 256 };
  for (const guest of [new MockGuest(memory(), { ...options, queueSize: 8 }), new PackedGuest(memory(), options)]) {
    const device = guest instanceof PackedGuest ? new PackedDevice(guest.rx()) : new SplitDevice(guest.rx());
    guest.post([5, 9, 6]);
    guest.post([20], { indirect: true });
    guest.post([40]);
    /** Writes `bytes` to a buffer's pieces. */
    const write = ({ pieces }: Taken, bytes: number[]) => {
      for (const { addr, len } of pieces) {
        bytes.splice(0, len).forEach((byte, i) => guest.view.setUint8(Number(addr) + i, byte));
      }
    };
    const [first, second, third] = [device.take(), device.take(), device.take()] as [Taken, Taken, Taken];
    const header = (buffers: number) => [...new Uint8Array(10), buffers, 0];
    write(first, [...header(2), 1, 2, 3, 4, 5, 6, 7, 8]);
    write(second, [9, 10]);
    write(third, [...header(1), 11]);
    device.giveBack([first], 20);
    device.giveBack([second], 2);
    device.giveBack([third], 13);
    assertEquals(guest.receive().map((bytes) => [...bytes]), [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [11]]);
    assertEquals(guest.posted(), 0);
    assert(guest.room() > 0);
  }
});
