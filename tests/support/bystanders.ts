/** Two honest guests beside a hostile one: they must keep talking, and not a byte of theirs may change. */
import { assertEquals } from "@std/assert";
import type { TestFabric } from "./fabric.ts";
import type { VirtqueueName } from "./formats.ts";
import { FrontEnd, type FrontEndGuest } from "./front_end.ts";
import { frame } from "./mock_guest.ts";
import { until } from "./wait.ts";

const CANARY = 0x5a;

/** Guests on VF 0 and VF 1. */
export class Bystanders implements AsyncDisposable {
  readonly guests: [FrontEnd<FrontEndGuest>, FrontEnd<FrontEndGuest>];
  readonly #macs: [string, string];
  readonly #canaries: [number, number][];

  private constructor(guests: Bystanders["guests"], macs: [string, string]) {
    this.guests = guests;
    this.#macs = macs;
    this.#canaries = guests.map(({ guest, memory }) => {
      const { queueSize, bufferBytes } = guest.options;
      const range: [number, number] = [
        guest.heap + queueSize * bufferBytes * guest.queues.length,
        memory.view.byteLength,
      ];
      new Uint8Array(memory.view.buffer).fill(CANARY, ...range);
      return range;
    });
  }

  /** Attaches both, with rings of one format. */
  static async attach(fabric: TestFabric, format: VirtqueueName = "split"): Promise<Bystanders> {
    const vfs = [fabric.vf(0), fabric.vf(1)];
    const guests: FrontEnd<FrontEndGuest>[] = [];
    try {
      for (const vf of vfs) guests.push(await FrontEnd.connectAs(format, vf.socket).start());
    } catch (error) {
      for (const guest of guests) await guest[Symbol.asyncDispose]();
      throw error;
    }
    return new Bystanders(guests as Bystanders["guests"], vfs.map((vf) => vf.mac) as [string, string]);
  }

  /** Sends `count` frames each way and checks that exactly they arrive; then the canaries. */
  async check(count = 8): Promise<void> {
    for (const [from, to] of [[0, 1], [1, 0]] as const) {
      const [sender, receiver] = [this.guests[from], this.guests[to]];
      // Strays of an attack are not what is counted here: broadcasts, and what has waited for room.
      receiver.guest.receive();
      const source = (this.#macs[from] ?? "").split(":").map((byte) => parseInt(byte, 16));
      const isOurs = (bytes: Uint8Array) => bytes[13] === 0xb5 && source.every((byte, i) => bytes[6 + i] === byte);
      receiver.guest.fill(32 - receiver.guest.posted());
      const sent = Array.from(
        { length: count },
        (_, i) => frame({ dst: this.#macs[to], src: this.#macs[from], bytes: 60 + i * 100 }),
      );
      sender.guest.send(sent);
      sender.kick();
      const got: Uint8Array[] = [];
      await until(`${count} frames from bystander ${from} to ${to}`, () => {
        got.push(...receiver.guest.receive().filter(isOurs));
        return got.length >= count;
      });
      assertEquals(got, sent);
    }
    this.guests.forEach(({ memory }, i) => {
      const [start, end] = this.#canaries[i] ?? [0, 0];
      const bad = new Uint8Array(memory.view.buffer, start, end - start).findIndex((byte) => byte !== CANARY);
      assertEquals(bad, -1, `byte ${start + bad} of bystander ${i} was overwritten`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const guest of this.guests) await guest[Symbol.asyncDispose]();
  }
}
