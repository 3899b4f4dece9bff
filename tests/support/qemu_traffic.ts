/**
 * Traffic between two QEMU guests that runs until it is ended: a TCP stream each way with a sha256 of it at both ends,
 * and pings. Nothing of it may be damaged, doubled or come to rest, whatever happens to the guests' network cards.
 */
import { assert, assertEquals } from "@std/assert";
import type { TestFabric } from "./fabric.ts";
import type { QemuGuest } from "./qemu.ts";
import { until } from "./wait.ts";

const PORT = 5000;
/** How much of each stream is waited for, and how long that may take: TCP backs off after an interruption. */
const PROGRESS_BYTES = 64 * 1024;
const PROGRESS_DEADLINE_MS = 60_000;
const END_DEADLINE_MS = 60_000;

/** A guest, which may be another machine when it has moved; the fabric and the VF that it is on, and its address. */
export interface TrafficEnd {
  readonly guest: QemuGuest;
  readonly fabric: TestFabric;
  vf: number;
  ip: string;
}

/** Has a guest receive a stream. */
async function receive({ guest }: TrafficEnd): Promise<void> {
  // A listener whose input ends would close its half of the connection, so it reads from a pipe that nobody writes.
  await guest.check("mkfifo /tmp/silence");
  await guest.check(`{ nc -l -p ${PORT} 0<>/tmp/silence | sha256sum > /tmp/received; } &`);
  const port = PORT.toString(16).toUpperCase();
  await until("the guest to listen", async () => (await guest.run(`cat /proc/net/tcp* | grep -q :${port}`)).code === 0);
}

/** Has a guest send the same random MiB to another one, over and over, until it finds /tmp/enough. */
async function send({ guest }: TrafficEnd, to: TrafficEnd): Promise<void> {
  await guest.check("dd if=/dev/urandom of=/tmp/block bs=1M count=1 && mkfifo /tmp/copy");
  await guest.check("sha256sum < /tmp/copy > /tmp/sent &");
  const blocks = "{ while [ ! -e /tmp/enough ]; do cat /tmp/block; done; }";
  await guest.check(`{ ${blocks} | tee /tmp/copy | nc ${to.ip} ${PORT}; } &`);
}

/** Two guests' traffic. The second one sends the pings. */
export class GuestTraffic {
  readonly #ends: [TrafficEnd, TrafficEnd];
  #checks = 0;

  private constructor(ends: [TrafficEnd, TrafficEnd]) {
    this.#ends = ends;
  }

  static async start(first: TrafficEnd, second: TrafficEnd): Promise<GuestTraffic> {
    for (const end of [first, second]) await receive(end);
    await send(first, second);
    await send(second, first);
    await second.guest.check(`ping -i 0.1 ${first.ip} > /tmp/pings 2>&1 &`);
    return new GuestTraffic([first, second]);
  }

  async #receivedBytes(): Promise<number[]> {
    const counters = await Promise.all(this.#ends.map(({ fabric, vf }) => fabric.counters(vf)));
    return counters.map(({ rx_bytes }) => rx_bytes ?? 0);
  }

  async #answers(): Promise<number> {
    const [, { guest }] = this.#ends;
    const { output } = await guest.run("grep -c 'bytes from' /tmp/pings");
    return Number(output);
  }

  /** Waits until both streams have gone on by a good piece and a ping has been answered. */
  async flows(): Promise<void> {
    this.#checks++;
    const before = await this.#receivedBytes();
    const answers = await this.#answers();
    await until("both TCP streams to go on", async () => {
      const now = await this.#receivedBytes();
      return now.every((bytes, i) => bytes > (before[i] ?? 0) + PROGRESS_BYTES);
    }, PROGRESS_DEADLINE_MS);
    await until("an answer to a ping", async () => await this.#answers() > answers, PROGRESS_DEADLINE_MS);
  }

  /** Waits until the second guest sends a frame: something comes for the first one. */
  async somethingComes(): Promise<void> {
    const [, { fabric, vf }] = this.#ends;
    const sent = async () => (await fabric.counters(vf)).tx_frames ?? 0;
    const before = await sent();
    await until("a frame from the other guest", async () => await sent() > before);
  }

  /** Ends the streams and checks that each has come whole; then the pings. */
  async end(): Promise<void> {
    const [first, second] = this.#ends;
    for (const { guest } of this.#ends) await guest.check("touch /tmp/enough");
    for (const [from, to] of [[first, second], [second, first]] as const) {
      const sum = ({ guest }: TrafficEnd, file: string) =>
        until(`${file} of the guest on vf ${to.vf}`, async () => {
          const { output } = await guest.run(`cat ${file}`);
          return /^[0-9a-f]{64}/.exec(output)?.[0];
        }, END_DEADLINE_MS);
      assertEquals(await sum(to, "/tmp/received"), await sum(from, "/tmp/sent"), "what was sent and what arrived");
    }
    await second.guest.check("killall -INT ping");
    const pings = await until("the pings' summary", async () => {
      const { output } = await second.guest.run("grep -v 'bytes from' /tmp/pings");
      return /(\d+) packets received/.exec(output) && output;
    });
    const received = Number(/(\d+) packets received/.exec(pings)?.[1]);
    assert(received >= this.#checks, `fewer than ${this.#checks} pings were answered: ${pings}`);
    assertEquals(/duplicates/.exec(pings), null, pings);
    const output = await first.guest.check(`ping -c 20 -i 0.05 ${second.ip}`);
    assert(/20 packets transmitted, 20 packets received/.test(output), output);
  }
}
