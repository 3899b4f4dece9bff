/** Kicks without work: not listened to for a while, which doubles with each offence and is forgiven with time. */
import { assert, assertEquals } from "@std/assert";
import { keepKickRecord, kickRecord, Quarantine } from "../../shared/engine/quarantine.ts";
import { Q_KICK_FD, QUEUE_STRIDE } from "../../shared/layout/nic.ts";
import { createEventFd, Epoll, EPOLLET, EPOLLIN, eventRoom, signalEventFd, waitBlocking } from "../../shared/os/mod.ts";

const MS = 1e6;
const SECOND = 1e9;

/** Two queues with kick eventfds, as the worker has them. */
class Queues implements Disposable {
  readonly view = new DataView(new ArrayBuffer(QUEUE_STRIDE * 2));
  readonly epoll = new Epoll();
  readonly kicks = [createEventFd(), createEventFd()];
  readonly quarantine = new Quarantine(this.view, this.epoll.number);

  constructor() {
    this.kicks.forEach((kick, i) => {
      this.view.setInt32(i * QUEUE_STRIDE + Q_KICK_FD, kick.number, true);
      this.epoll.add(kick.number, EPOLLIN | EPOLLET, i * QUEUE_STRIDE);
    });
  }

  /** Kicks without work until it is an offence; answers the record then. */
  offend(nowNs: number, queue = 0) {
    const { kickOffences } = this.record(nowNs, queue);
    for (let i = 0; i < 16 && this.record(nowNs, queue).kickOffences === kickOffences; i++) {
      this.quarantine.spurious(queue, nowNs);
    }
    return this.record(nowNs, queue);
  }

  record(nowNs: number, queue = 0) {
    return kickRecord(this.view, queue, nowNs);
  }

  /** Whether a kick wakes the worker. */
  isHeard(queue = 0): boolean {
    const events = eventRoom();
    while (waitBlocking(this.epoll.number, events, 0) > 0);
    signalEventFd(this.kicks[queue / QUEUE_STRIDE]?.number ?? -1);
    return waitBlocking(this.epoll.number, events, 0) > 0;
  }

  [Symbol.dispose](): void {
    this.epoll.close();
    for (const kick of this.kicks) kick.close();
  }
}

Deno.test("sixteen kicks in a row without work are an offence; one with work in between is none", () => {
  using queues = new Queues();
  for (let i = 0; i < 100; i++) {
    for (let kick = 0; kick < 15; kick++) queues.quarantine.spurious(0, i * MS);
    queues.quarantine.heeded(0);
  }
  assertEquals(queues.record(100 * MS), { quarantineMs: 0, kickOffences: 0 });
  assert(queues.isHeard());
  for (let kick = 0; kick < 16; kick++) queues.quarantine.spurious(0, 100 * MS);
  assertEquals(queues.record(100 * MS), { quarantineMs: 1, kickOffences: 1 });
});

Deno.test("a queue in quarantine wakes nobody, its neighbour does; then it is heard again", () => {
  using queues = new Queues();
  queues.offend(0);
  assertEquals([queues.isHeard(0), queues.isHeard(QUEUE_STRIDE)], [false, true]);
  assertEquals(queues.quarantine.timeoutMs(0), 1);
  queues.quarantine.release(MS - 1);
  assert(!queues.isHeard());
  queues.quarantine.release(MS);
  assertEquals(queues.quarantine.timeoutMs(MS), -1);
  assert(queues.isHeard());
});

Deno.test("the time doubles with each offence in a row, up to 64 ms, and is shown", () => {
  using queues = new Queues();
  let nowNs = 0;
  const times = Array.from({ length: 9 }, () => {
    const { quarantineMs } = queues.offend(nowNs);
    assertEquals(queues.quarantine.timeoutMs(nowNs), quarantineMs);
    nowNs += quarantineMs * MS;
    queues.quarantine.release(nowNs);
    return quarantineMs;
  });
  assertEquals(times, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
  assertEquals(queues.record(nowNs), { quarantineMs: 64, kickOffences: 9 });
  assertEquals(queues.record(nowNs, QUEUE_STRIDE), { quarantineMs: 0, kickOffences: 0 }, "each queue has its own");
});

Deno.test("each second without an offence halves it: in the end it is forgiven, but not forgotten", () => {
  using queues = new Queues();
  let nowNs = 0;
  for (let i = 0; i < 7; i++) {
    nowNs += queues.offend(nowNs).quarantineMs * MS;
    queues.quarantine.release(nowNs);
  }
  const after = [0, 0.9, 1, 2.5, 6, 7, 1000].map((s) => queues.record(nowNs + s * SECOND).quarantineMs);
  assertEquals(after, [64, 64, 32, 16, 1, 0, 0]);
  assertEquals(queues.record(nowNs + 1000 * SECOND).kickOffences, 7);
  assertEquals(queues.offend(nowNs + 2 * SECOND).quarantineMs, 32, "16 were left, and doubled");
});

Deno.test("a queue that is stopped and started is heard again, and has its record still", () => {
  using queues = new Queues();
  let nowNs = 0;
  for (let i = 0; i < 3; i++) {
    queues.quarantine.release(nowNs);
    const { quarantineMs } = queues.offend(nowNs);
    if (i < 2) nowNs += quarantineMs * MS;
  }
  const record = queues.record(nowNs);
  assertEquals(record, { quarantineMs: 4, kickOffences: 3 });
  // As `stop` and `start` do.
  queues.epoll.remove(queues.kicks[0]?.number ?? -1);
  new Uint8Array(queues.view.buffer, 0, QUEUE_STRIDE).fill(0);
  queues.view.setInt32(Q_KICK_FD, queues.kicks[0]?.number ?? -1, true);
  keepKickRecord(queues.view, 0, record, nowNs);
  queues.epoll.add(queues.kicks[0]?.number ?? -1, EPOLLIN | EPOLLET, 0);
  queues.quarantine.release(nowNs);
  assertEquals(queues.quarantine.timeoutMs(nowNs), -1);
  assert(queues.isHeard());
  assertEquals(queues.offend(nowNs), { quarantineMs: 8, kickOffences: 4 });
});

Deno.test("a queue that has gone is forgotten", () => {
  using queues = new Queues();
  queues.offend(0);
  queues.view.setInt32(Q_KICK_FD, -1, true);
  queues.quarantine.release(MS);
  assertEquals(queues.quarantine.timeoutMs(MS), -1);
});
