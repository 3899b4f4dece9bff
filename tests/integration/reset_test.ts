/**
 * Resets as front-ends send them. QEMU 7.2 sends SET_STATUS 0 at every stop and asks for the bases after it: a ring goes
 * on exactly where it stood, whoever drives it and whatever happened while it was stopped.
 */
import { assertEquals } from "@std/assert";
import { createEventFd, drainEventFd } from "../../shared/os/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, u64, vringState } from "../support/front_end.ts";
import { must, setMode } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { reset, RESETS, startAsQemu, stopAsQemu } from "../support/qemu_sequence.ts";
import { until } from "../support/wait.ts";

const ROUNDS = 20;
/** Frames a round, and how many of them are offered while the sender's device is stopped. Rings wrap within a test. */
const FRAMES = 24;
const HELD = 8;
const NUMBER_AT = 14;

/** Two guests that send each other numbered frames. The first one's device is stopped and started. */
class NumberedTraffic implements AsyncDisposable {
  readonly fabric: TestFabric;
  readonly front: FrontEnd;
  readonly peer: FrontEnd;
  readonly #sent = new Map<FrontEnd, number>();
  readonly #received = new Map<FrontEnd, number>();

  private constructor(fabric: TestFabric, front: FrontEnd, peer: FrontEnd) {
    this.fabric = fabric;
    this.front = front;
    this.peer = peer;
  }

  static async start(fabric: TestFabric, queuePairs = 1): Promise<NumberedTraffic> {
    const front = await FrontEnd.connect(fabric.vf(0).socket, { queuePairs }).start();
    const peer = await FrontEnd.connect(fabric.vf(1).socket).start();
    return new NumberedTraffic(fabric, front, peer);
  }

  /** Sends `count` frames with the numbers that come next. */
  send(from: FrontEnd, count: number, pair = 0): void {
    const [src, dst] = from === this.front ? [0, 1] : [1, 0];
    const first = this.#sent.get(from) ?? 0;
    const frames = Array.from({ length: count }, (_, i) => {
      const payload = new Uint8Array(60);
      new DataView(payload.buffer).setUint32(0, first + i);
      return frame({ dst: this.fabric.vf(dst).mac, src: this.fabric.vf(src).mac, payload });
    });
    from.guest.room(pair);
    from.guest.send(frames, pair);
    from.kick(2 * pair + 1);
    this.#sent.set(from, first + count);
  }

  /** Waits until everything that was sent has arrived at the other guest: each frame once, in order. */
  async arrive(at: FrontEnd): Promise<void> {
    const from = at === this.front ? this.peer : this.front;
    let next = this.#received.get(at) ?? 0;
    await until(`frames ${next}–${this.#sent.get(from)}`, () => {
      for (const pair of Array.from({ length: at.guest.queues.length / 2 }, (_, i) => i)) {
        for (const bytes of at.guest.receive(pair)) {
          assertEquals(new DataView(bytes.buffer).getUint32(NUMBER_AT), next++, "each frame once and in order");
        }
      }
      return next === this.#sent.get(from);
    });
    this.#received.set(at, next);
  }

  /** Posts receive buffers until `count` wait in each receive queue. */
  post(at: FrontEnd, count: number): void {
    for (let pair = 0; pair < at.guest.queues.length / 2; pair++) {
      const rx = at.guest.rx(pair);
      at.guest.fill(count - ((rx.availIdx - rx.usedIdx) & 0xffff), pair);
    }
  }

  /** Where the front-end's rings stand, by their used indices: frames are used in order. */
  get positions(): number[] {
    return this.front.guest.queues.map(({ usedIdx }) => usedIdx);
  }

  /** A round of traffic both ways; `whileStopped` runs between stop and start, with frames waiting to be sent. */
  async round(stop: () => Promise<number[]>, whileStopped: () => Promise<void> = () => Promise.resolve()) {
    for (const guest of [this.front, this.peer]) this.post(guest, 40);
    this.send(this.peer, FRAMES);
    await this.arrive(this.front);
    // The stop comes while the NIC takes these.
    this.send(this.front, FRAMES - HELD);
    const bases = await stop();
    assertEquals(bases, this.positions);
    this.send(this.front, HELD);
    await whileStopped();
    assertEquals(this.positions, bases, "a stopped ring stays where it is");
    await startAsQemu(this.front, bases);
    await this.arrive(this.peer);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const guest of [this.front, this.peer]) await guest[Symbol.asyncDispose]();
  }
}

for (const mode of ["passthrough", "emulated"]) {
  Deno.test(`QEMU 7.2's stop and start under traffic, ${mode}: no frame lost, twice or skipped`, async () => {
    await using fabric = await TestFabric.start(2);
    await setMode(fabric, 0, { mode });
    await using traffic = await NumberedTraffic.start(fabric);
    for (let i = 0; i < ROUNDS; i++) await traffic.round(() => stopAsQemu(traffic.front));
  });
}

Deno.test("QEMU 7.2's stop with four queue pairs: SET_STATUS 0 comes amid the GET_VRING_BASEs", async () => {
  await using fabric = await TestFabric.start(2);
  await using traffic = await NumberedTraffic.start(fabric, 4);
  const { front, peer } = traffic;
  for (let i = 0; i < ROUNDS; i++) {
    for (const guest of [front, peer]) traffic.post(guest, 40);
    // One pair after the other: between queues there is no order.
    for (let pair = 0; pair < 4; pair++) {
      traffic.send(front, 4, pair);
      await traffic.arrive(peer);
    }
    const bases = await stopAsQemu(front);
    assertEquals(bases, traffic.positions);
    traffic.send(front, 4, i % 4);
    await startAsQemu(front, bases);
    await traffic.arrive(peer);
    traffic.send(peer, 4);
    await traffic.arrive(front);
  }
});

Deno.test("every reset leaves the bases to be asked for, more than once if need be", async () => {
  await using fabric = await TestFabric.start(2);
  await using traffic = await NumberedTraffic.start(fabric);
  for (const request of RESETS) {
    await traffic.round(async () => {
      await stopAsQemu(traffic.front, request);
      return await stopAsQemu(traffic.front, request);
    });
  }
});

Deno.test("a stopped guest changes hands, and its NIC restarts: its rings go on where they stopped", async (t) => {
  await using fabric = await TestFabric.start(2);
  await using traffic = await NumberedTraffic.start(fabric);
  const dataPath = (path: string) =>
    must(`${fabric.url("vhost")}/api/v1/ports/0/dataPath`, "PUT", { dataPath: path }).then(() => {});
  // What is on its way dies with a NIC, so the device stops when everything has arrived.
  const stop = async () => {
    await traffic.arrive(traffic.peer);
    return await stopAsQemu(traffic.front);
  };
  const killNic = () => {
    const pid = fabric.pid("nic");
    Deno.kill(pid, "SIGKILL");
    return pid;
  };
  const nicRestarted = (killed: number) =>
    until("the peer's rings to run in the new NIC", async () => {
      const [, vf] = await fabric.get("/api/v1/vfs").catch(() => []);
      return fabric.pids().nic !== killed && vf?.queues?.length === 2;
    }).then(() => {});
  const restartNic = () => nicRestarted(killNic());
  const changes: Record<string, () => Promise<void>> = {
    "passthrough to emulated": () => setMode(fabric, 0, { mode: "emulated" }).then(() => {}),
    "a new NIC under emulated": restartNic,
    "emulated to passthrough": () => setMode(fabric, 0, { mode: "passthrough" }).then(() => {}),
    "a new NIC under passthrough": restartNic,
    "there and back": async () => {
      await setMode(fabric, 0, { mode: "emulated" });
      await setMode(fabric, 0, { mode: "passthrough" });
    },
    "nobody drives the rings": async () => {
      await dataPath("guest");
      await dataPath("passthrough");
    },
  };
  for (const [name, change] of Object.entries(changes)) {
    await t.step(name, () => traffic.round(stop, change));
  }
  await t.step("the stop comes while nobody drives the rings", async () => {
    await traffic.round(async () => {
      await dataPath("guest");
      return await stopAsQemu(traffic.front);
    }, () => dataPath("passthrough"));
  });
  await t.step("the stop comes while the NIC is away", async () => {
    let killed = 0;
    await traffic.round(async () => {
      await traffic.arrive(traffic.peer);
      killed = killNic();
      return await stopAsQemu(traffic.front);
    }, () => nicRestarted(killed));
  });
});

Deno.test("a reset ring is disabled and has no size, addresses or kick; enabling it does not start it", async () => {
  await using fabric = await TestFabric.start(1);
  await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
  const vrings = async () => (await must(`${fabric.url("vhost")}/api/v1/ports/0`)).session.vrings;
  const stopped = (index: number, enabled: boolean) => ({ index, size: 0, enabled, running: false });
  for (const request of RESETS) {
    reset(front, request);
    assertEquals(await front.ask("VHOST_USER_GET_STATUS"), 0n);
    assertEquals(await vrings(), [stopped(0, false), stopped(1, false)]);
    assertEquals(await front.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(1, 1)), 0n);
    assertEquals(await vrings(), [stopped(0, false), stopped(1, true)]);
    await startAsQemu(front, [0, 0]);
    assertEquals((await vrings()).map((ring: { running: boolean }) => ring.running), [true, true]);
  }
});

Deno.test("the error eventfd survives resets: QEMU sends it once, when it creates the device", async () => {
  await using fabric = await TestFabric.start(1);
  await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
  using err = createEventFd();
  front.send("VHOST_USER_SET_VRING_ERR", u64(1n), [err.number]);
  const tx = front.guest.tx();
  for (const request of RESETS) {
    const bases = await stopAsQemu(front, request);
    await startAsQemu(front, bases);
    assertEquals(drainEventFd(err.number), 0n);
    tx.publish(tx.availIdx + tx.size + 1);
    front.kick();
    await until(`the error eventfd to be signalled after ${request}`, () => drainEventFd(err.number) > 0n);
    tx.publish();
  }
});
