/**
 * The control queue, over both ring formats: what a driver asks for is carried out in its order and answered; a ring
 * that breaks the protocol stops with a reason.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { createEventFd, Reactor, signalEventFd } from "../../shared/os/mod.ts";
import { VIRTIO_NET_ERR, VIRTIO_NET_OK, VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import type { Command } from "../../services/vhost/control/commands.ts";
import { isGiven } from "../../services/vhost/control/packed.ts";
import { ControlQueue, type KeptControl } from "../../services/vhost/control/queue.ts";
import type { GuestMemory } from "../../services/vhost/control/ring.ts";
import { SplitDriver } from "../support/mock_guest.ts";
import { PackedDriver } from "../support/packed_guest.ts";
import type { Piece } from "../support/virtqueue.ts";
import { until } from "../support/wait.ts";

const IOVA = 0x4_0000_0000n;
const SIZE = 8;
const [COMMAND, ANSWER, TABLE] = [0x4000, 0x6000, 0x7000];
const NO_ANSWER = 0xee;

type Format = "split" | "packed";
const FORMATS: Format[] = ["split", "packed"];

/** A guest with a control queue, and who carries its commands out. */
class ControlRig implements AsyncDisposable {
  readonly view = new DataView(new ArrayBuffer(0x8000));
  readonly driver: SplitDriver | PackedDriver;
  readonly reactor = new Reactor();
  readonly kick = createEventFd();
  readonly queue: ControlQueue;
  readonly done: Command[] = [];
  readonly said: string[] = [];
  refusal: string | undefined;
  /** Units that the queue has paid. */
  paid = 0;
  /** Waits with a command until its queue stops. */
  waits = false;
  stopped = false;
  interrupts = 0;
  /** What whoever stands by was told last; it dies when it has told it. */
  kept: KeptControl | undefined;
  dies = false;
  failure: string | undefined;

  constructor(readonly format: Format, readonly eventIdx = false, readonly size = SIZE) {
    const Driver = format === "split" ? SplitDriver : PackedDriver;
    this.driver = new Driver(this.view, 0x1000, size, { eventIdx });
    this.queue = new ControlQueue({
      reactor: this.reactor,
      pace: { step: () => Promise.resolve(void this.paid++) },
      carryOut: async (command, stopped) => {
        this.done.push(command);
        if (this.waits) await new Promise((resolve) => stopped.addEventListener("abort", resolve));
        this.stopped = stopped.aborted;
        return this.refusal;
      },
      log: (_level, message) => void this.said.push(message),
      changed: async () => {
        if (!this.queue.kept) return;
        this.kept = this.queue.kept;
        if (this.dies) await new Promise(() => {});
      },
    });
  }

  start(base = this.format === "split" ? 0 : VIRTQ_PACKED_BASE_INITIAL): this {
    const at = (offset: number) => IOVA + BigInt(offset);
    this.queue.start({
      packed: this.format === "packed",
      place: {
        ...{ desc: at(this.driver.desc), avail: at(this.driver.avail), used: at(this.driver.used) },
        ...{ size: this.size, base, eventIdx: this.eventIdx, indirect: true },
      },
      memory: this.memory,
      kick: this.kick,
      raise: () => this.interrupts++,
      failed: (reason) => this.failure = reason,
    });
    return this;
  }

  get memory(): GuestMemory {
    const at = (address: bigint, bytes: number) => {
      const offset = Number(address - IOVA);
      return offset >= 0 && offset + bytes <= this.view.byteLength ? offset : undefined;
    };
    return {
      read: (address, bytes) => {
        const offset = at(address, bytes);
        return offset === undefined ? undefined : new Uint8Array(this.view.buffer.slice(offset, offset + bytes));
      },
      write: (address, bytes) => {
        const offset = at(address, bytes.byteLength);
        if (offset !== undefined) new Uint8Array(this.view.buffer).set(bytes, offset);
        return offset !== undefined;
      },
    };
  }

  /** The pieces of a command, as Linux makes them: class and command, data, room for an answer. */
  pieces(command: number[], at = 0): Piece[] {
    const from = COMMAND + at * 64;
    command.forEach((byte, i) => this.view.setUint8(from + i, byte));
    this.view.setUint8(ANSWER + at, NO_ANSWER);
    const parts: Piece[] = [{ addr: IOVA + BigInt(from), len: 2 }];
    if (command.length > 2) parts.push({ addr: IOVA + BigInt(from + 2), len: command.length - 2 });
    return [...parts, { addr: IOVA + BigInt(ANSWER + at), len: 1, write: true }];
  }

  offer(pieces: Piece[], indirect = false): void {
    this.driver.add(pieces, indirect ? { at: TABLE, iova: IOVA + BigInt(TABLE) } : undefined);
    this.driver.publish();
    signalEventFd(this.kick.number);
  }

  /** Sends a command and waits for its answer. */
  async send(command: number[], indirect = false): Promise<number> {
    this.offer(this.pieces(command), indirect);
    const used = await until("the command's answer", () => this.driver.popUsed());
    assertEquals(used.len, 1);
    return this.view.getUint8(ANSWER);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.queue.stop();
    await this.reactor.close();
    this.kick.close();
  }
}

const mac = (last: number) => [2, 0, 0, 0, 0, last];
const COMMANDS: [string, number[], Command][] = [
  ["promiscuous on", [0, 0, 1], { kind: "promisc", on: true }],
  ["all multicast off", [0, 1, 0], { kind: "allMulticast", on: false }],
  ["an address", [1, 1, ...mac(9)], { kind: "mac", mac: "02:00:00:00:00:09" }],
  [
    "address tables",
    [1, 0, 1, 0, 0, 0, ...mac(7), 1, 0, 0, 0, 0x33, 0x33, 0, 0, 0, 1],
    { kind: "addresses", unicast: ["02:00:00:00:00:07"], multicast: ["33:33:00:00:00:01"] },
  ],
  ["a VLAN", [2, 0, 5, 1], { kind: "vlan", id: 0x105, on: true }],
  ["no VLAN any more", [2, 1, 5, 0], { kind: "vlan", id: 5, on: false }],
  ["an announcement made", [3, 0], { kind: "announced" }],
  ["queue pairs", [4, 0, 4, 0], { kind: "queuePairs", pairs: 4 }],
];

/** What is no command, or not as long as it has to be. */
const NO_COMMANDS: [string, number[]][] = [
  ["nothing", []],
  ["half a header", [0]],
  ["a class that there is not", [9, 0]],
  ["a receive mode without its byte", [0, 0]],
  ["a receive mode that is neither on nor off", [0, 0, 2]],
  ["an address of five bytes", [1, 1, 2, 0, 0, 0, 0]],
  ["a table with more entries than bytes", [1, 0, 0xff, 0xff, 0xff, 0xff, ...mac(1)]],
  ["tables with bytes behind them", [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]],
  ["a multicast address among unicast ones", [1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0]],
  ["VLAN 4096", [2, 0, 0, 16]],
];

for (const format of FORMATS) {
  for (const indirect of [false, true]) {
    const how = `${format}${indirect ? ", indirect" : ""}`;
    Deno.test(`commands are understood, carried out and answered, lap after lap (${how})`, async () => {
      await using rig = new ControlRig(format).start();
      for (const [what, bytes, command] of [...COMMANDS, ...COMMANDS, ...COMMANDS]) {
        assertEquals(await rig.send(bytes, indirect), VIRTIO_NET_OK, what);
        assertEquals(rig.done.at(-1), command);
      }
      assertEquals([rig.failure, rig.done.length, rig.interrupts], [undefined, 24, 24]);
    });
  }

  Deno.test(`what is no command is refused, and the next one is served (${format})`, async () => {
    await using rig = new ControlRig(format).start();
    for (const [what, bytes] of NO_COMMANDS) {
      const pieces = rig.pieces(bytes).map((
        piece,
        i,
      ) => (i === 0 ? { ...piece, len: Math.min(2, bytes.length) } : piece));
      rig.offer(pieces.filter(({ len }) => len > 0));
      await until(what, () => rig.driver.popUsed());
      assertEquals(rig.view.getUint8(ANSWER), VIRTIO_NET_ERR, what);
    }
    assertEquals(rig.done, []);
    assertEquals(await rig.send([3, 0]), VIRTIO_NET_OK);
  });

  Deno.test(`a refusal is VIRTIO_NET_ERR, and its reason is logged (${format})`, async () => {
    await using rig = new ControlRig(format).start();
    rig.refusal = "vf 0 may not change its address";
    assertEquals(await rig.send([1, 1, ...mac(9)]), VIRTIO_NET_ERR);
    assertEquals(rig.said, ["control queue: vf 0 may not change its address"]);
  });

  Deno.test(`a driver that wants no interrupts gets none (${format})`, async () => {
    await using rig = new ControlRig(format).start();
    rig.driver.noInterrupt = true;
    await rig.send([3, 0]);
    assertEquals(rig.interrupts, 0);
  });

  Deno.test(`with EVENT_IDX the queue asks for its kicks (${format})`, async () => {
    await using rig = new ControlRig(format, true).start();
    for (let i = 0; i < 3 * SIZE; i++) {
      rig.offer(rig.pieces([3, 0]));
      assertEquals(rig.driver.takeKick(), true, `command ${i}`);
      await until("the answer", () => rig.driver.popUsed());
    }
  });

  Deno.test(`it stops where it is, and goes on there (${format})`, async () => {
    await using rig = new ControlRig(format).start();
    for (let i = 0; i < SIZE + 3; i++) await rig.send([3, 0]);
    const base = rig.queue.stop();
    assertEquals(base, rig.driver.base);
    rig.offer(rig.pieces([4, 0, 2, 0]));
    rig.start(base);
    await until("the command that came meanwhile", () => rig.driver.popUsed());
    assertEquals(rig.done.at(-1), { kind: "queuePairs", pairs: 2 });
  });

  Deno.test(`a command that waits holds up no stop, and is taken again by whoever is next (${format})`, async () => {
    await using rig = new ControlRig(format).start();
    rig.waits = true;
    rig.offer(rig.pieces([3, 0]));
    await until("the command", () => rig.done.length === 1);
    const base = rig.queue.stop();
    await until("its end", () => rig.stopped);
    assertEquals(rig.driver.popUsed(), undefined);
    rig.waits = false;
    rig.start(base);
    await until("the answer", () => rig.driver.popUsed());
    assertEquals(rig.done.length, 2);
  });

  Deno.test(`a kick costs, with or without a command (${format})`, async () => {
    await using rig = new ControlRig(format).start();
    for (let kicks = 1; kicks <= 5; kicks++) {
      const before = rig.paid;
      signalEventFd(rig.kick.number);
      await until("the kick to be paid", () => rig.paid > before);
    }
  });

  Deno.test(`a command of more descriptors than any has stops the queue (${format})`, async () => {
    await using rig = new ControlRig(format, false, 128).start();
    rig.offer(Array.from({ length: 65 }, () => ({ addr: IOVA, len: 1 })));
    assertMatch(await until("the queue to stop", () => rig.failure), /a command of more than 64 descriptors/);
  });

  /** What a hostile driver puts into its control queue, and the reason with which the queue stops. */
  const attacks: [string, (rig: ControlRig) => void, RegExp][] = [
    ["a buffer that it has not got", (rig) => rig.offer([{ addr: 0n, len: 2 }]), /0x0 is not in the guest's memory/],
    [
      "a buffer that ends beyond its memory",
      (rig) => rig.offer([{ addr: IOVA + 0x7fffn, len: 2 }]),
      /not in the guest/,
    ],
    [
      "a table in a table",
      (rig) => {
        rig.driver.add([{ addr: IOVA, len: 16 }], { at: TABLE, iova: IOVA + BigInt(TABLE) });
        const flags = format === "split" ? 12 : 14;
        rig.view.setUint16(TABLE + flags, 4, true);
        if (format === "packed") rig.view.setBigUint64(TABLE, 0n, true);
        rig.driver.publish();
        signalEventFd(rig.kick.number);
      },
      /indirect table|not in the guest/,
    ],
    [
      "a readable buffer behind a writable one",
      (rig) => rig.offer([{ addr: IOVA, len: 1, write: true }, { addr: IOVA, len: 2 }]),
      /a readable buffer behind a writable one/,
    ],
  ];
  for (const [what, attack, reason] of attacks) {
    Deno.test(`${what} stops the queue with the reason (${format})`, async () => {
      await using rig = new ControlRig(format).start();
      attack(rig);
      assertMatch(await until("the queue to stop", () => rig.failure), reason);
      assertEquals(rig.done, []);
    });
  }
}

Deno.test("a split ring's loop, and an avail index that jumps, stop the queue", async () => {
  for (
    const [attack, reason] of [
      [(driver: SplitDriver) => {
        driver.writeDescriptor(0, { addr: IOVA, len: 1, flags: 1, next: 0 });
        driver.offer(0);
        driver.publish();
      }, /a chain longer than the queue/],
      [(driver: SplitDriver) => driver.publish(SIZE + 1), /its avail index jumped by 9/],
      [(driver: SplitDriver) => {
        driver.offer(SIZE);
        driver.publish();
      }, /descriptor 8, and there are 8/],
    ] as const
  ) {
    await using rig = new ControlRig("split").start();
    attack(rig.driver as SplitDriver);
    signalEventFd(rig.kick.number);
    assertMatch(await until("the queue to stop", () => rig.failure), reason);
  }
});

Deno.test("a request without room for an answer comes back without one", async () => {
  for (const format of FORMATS) {
    await using rig = new ControlRig(format).start();
    rig.offer(rig.pieces([3, 0]).slice(0, 1));
    assertEquals((await until("the request", () => rig.driver.popUsed())).len, 0);
  }
});

for (const isGivenBack of [false, true]) {
  const when = isGivenBack ? "behind" : "before";
  Deno.test(`packed: a queue whose process died ${when} a command was given back goes on: each is answered once`, async () => {
    await using rig = new ControlRig("packed", false, 4).start();
    // The third command's descriptors go round the ring's end.
    for (let i = 0; i < 2; i++) await rig.send([0, 0, 1]);
    rig.dies = !isGivenBack;
    if (isGivenBack) await rig.send([0, 0, 0]);
    else rig.offer(rig.pieces([0, 0, 0]));
    const { position, next } = await until("it to tell", () => rig.done.length === 3 ? rig.kept : undefined);
    const at = IOVA + BigInt(rig.driver.desc);
    assertEquals(isGiven(rig.memory, at, position), isGivenBack);
    rig.queue.stop();
    rig.dies = false;
    rig.start(isGivenBack ? next : position);
    if (!isGivenBack) await until("the command's answer", () => rig.driver.popUsed());
    await rig.send([0, 0, 1]);
    assertEquals(rig.done.map((command) => command.kind === "promisc" && command.on), [
      ...[true, true, false],
      ...(isGivenBack ? [] : [false]),
      true,
    ]);
    assertEquals(rig.failure, undefined);
  });
}
