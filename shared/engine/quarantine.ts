/**
 * Quarantine for kicks without work. A guest that kicks IDLE_KICKS_MAX times in a row and has nothing to send wakes the
 * engine for nothing: its queue's kicks are then not listened to for a while. The while doubles with each offence, up to
 * QUARANTINE_MS_MAX, and halves with each FORGIVE_MS without one. What it has to send meanwhile waits until then.
 *
 * The record is in the arena, a few words of each queue, so the API can show it.
 */
import { Q_IDLE_KICKS, Q_KICK_FD, Q_OFFENCES, Q_QUARANTINE_END_NS, Q_QUARANTINE_MS } from "../layout/nic.ts";
import { EPOLLET, EPOLLIN, modifyEvents } from "../os/epoll.ts";
import { drainEventFd } from "../os/fd.ts";

/** Kicks in a row without work that are an offence. */
const IDLE_KICKS_MAX = 16;
const QUARANTINE_MS_MIN = 1;
const QUARANTINE_MS_MAX = 64;
const FORGIVE_MS = 1000;
const NS_PER_MS = 1e6;

/** What is known of a queue's kicks, for APIs and for a queue that starts again. */
export interface KickRecord {
  /** How long its last quarantine was, less what has been forgiven since; 0 in good standing. */
  quarantineMs: number;
  /** How often it was put into quarantine. */
  kickOffences: number;
}

/** The record of the queue at `at`. */
export function kickRecord(view: DataView, at: number, nowNs: number): KickRecord {
  const goodMs = Math.max(0, nowNs - view.getFloat64(at + Q_QUARANTINE_END_NS, true)) / NS_PER_MS;
  const halvings = Math.min(31, Math.floor(goodMs / FORGIVE_MS));
  return {
    quarantineMs: view.getUint32(at + Q_QUARANTINE_MS, true) >> halvings,
    kickOffences: view.getUint32(at + Q_OFFENCES, true),
  };
}

/** Has a queue that starts again keep its record: a restart ends its quarantine, and forgives nothing. */
export function keepKickRecord(view: DataView, at: number, record: KickRecord, nowNs: number): void {
  view.setUint32(at + Q_QUARANTINE_MS, record.quarantineMs, true);
  view.setUint32(at + Q_OFFENCES, record.kickOffences, true);
  view.setFloat64(at + Q_QUARANTINE_END_NS, nowNs, true);
}

/** The worker's side: whose kicks are not listened to now. Queues are arena offsets. */
export class Quarantine {
  readonly #view: DataView;
  readonly #epollFd: number;
  readonly #queues = new Set<number>();

  constructor(view: DataView, epollFd: number) {
    this.#view = view;
    this.#epollFd = epollFd;
  }

  /** A kick of `queue` brought work. */
  heeded(queue: number): void {
    this.#view.setUint32(queue + Q_IDLE_KICKS, 0, true);
  }

  /** A kick of `queue` brought none. */
  spurious(queue: number, nowNs: number): void {
    const idleKicks = this.#view.getUint32(queue + Q_IDLE_KICKS, true) + 1;
    this.#view.setUint32(queue + Q_IDLE_KICKS, idleKicks, true);
    if (idleKicks < IDLE_KICKS_MAX || this.#queues.has(queue)) return;
    const { quarantineMs, kickOffences } = kickRecord(this.#view, queue, nowNs);
    const ms = Math.min(QUARANTINE_MS_MAX, Math.max(QUARANTINE_MS_MIN, quarantineMs * 2));
    this.#view.setUint32(queue + Q_QUARANTINE_MS, ms, true);
    this.#view.setUint32(queue + Q_OFFENCES, kickOffences + 1, true);
    this.#view.setFloat64(queue + Q_QUARANTINE_END_NS, nowNs + ms * NS_PER_MS, true);
    this.#queues.add(queue);
    this.#listen(queue, EPOLLET);
  }

  /**
   * Listens again to those whose time is over, and answers them: the caller looks what they have to send, since a kick
   * that is drained here must not be the one that the worker then sleeps for.
   */
  release(nowNs: number): number[] {
    const free: number[] = [];
    for (const queue of this.#queues) {
      if (this.#view.getFloat64(queue + Q_QUARANTINE_END_NS, true) > nowNs) continue;
      this.#queues.delete(queue);
      const fd = this.#view.getInt32(queue + Q_KICK_FD, true);
      if (fd < 0) continue;
      // Half the patience comes back. A guest that has stopped is soon forgiven, one that goes on soon offends again.
      this.#view.setUint32(queue + Q_IDLE_KICKS, IDLE_KICKS_MAX / 2, true);
      drainEventFd(fd);
      this.#listen(queue, EPOLLIN | EPOLLET);
      free.push(queue);
    }
    return free;
  }

  /** For how long the worker may sleep before somebody's time is over, in whole milliseconds; -1 if nobody's will be. */
  timeoutMs(nowNs: number): number {
    let nextNs = Infinity;
    for (const queue of this.#queues) {
      nextNs = Math.min(nextNs, this.#view.getFloat64(queue + Q_QUARANTINE_END_NS, true));
    }
    return nextNs === Infinity ? -1 : Math.max(1, Math.ceil((nextNs - nowNs) / NS_PER_MS));
  }

  /** A queue that was stopped meanwhile has left the epoll instance, and nothing is lost then. */
  #listen(queue: number, events: number): void {
    const fd = this.#view.getInt32(queue + Q_KICK_FD, true);
    if (fd >= 0) modifyEvents(this.#epollFd, fd, events, queue);
  }
}
