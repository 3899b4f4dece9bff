/**
 * The tables of an engine that has ended, as its successor finds them: what points into windows, or names descriptors, was
 * the other process's. All of that is written anew, from what the successor was told while it stood by. A queue, a hold or
 * a packet buffer that it was not told of was not there yet as far as anybody had been answered, and is left out.
 */
import * as L from "../layout/nic.ts";
import { EPOLLET, EPOLLIN, type Fd } from "../os/mod.ts";
import type { Engine } from "./engine.ts";
import { type LoggedPool, setLogged } from "./log_requests.ts";
import type { BufferTakeOver } from "./packet_buffer.ts";
import { isHeard, raiseOnce, writeDescriptors } from "./queue_entry.ts";
import type { RunningQueue } from "./queues.ts";

/** Clears what of every pool leads to memory of the process that has ended. The engine stands still. */
function clearPlaces(view: DataView): void {
  for (let pool = 0; pool < L.POOL_COUNT; pool++) {
    const at = L.POOLS + pool * L.POOL_STRIDE;
    const places = [L.P_HELD, L.P_RX_COUNT, L.P_REGION_COUNT, L.P_BUFFER, L.P_LOG, L.P_LOG_BYTES];
    // Captures end with the process that had them.
    const fields = [...places, L.P_BUFFERED, L.P_OVERRUN, L.P_BLOCKED_QUEUE, L.P_WATCH];
    for (const field of fields) view.setUint32(at + field, 0, true);
  }
  for (const count of [L.CTL_CALL_COUNT, L.CTL_DEFERRED_COUNT, L.CTL_BUFFERED_COUNT, L.CTL_HELD_FROM, L.CTL_HELD_TO]) {
    view.setUint32(L.CTL + count, 0, true);
  }
}

/** What of the batch in which the engine ended is in force, for its packet buffers. */
export function lastBatch(view: DataView): Omit<BufferTakeOver, "file"> {
  const word = (field: number) => view.getUint32(L.BATCH + field, true);
  return {
    isCommitted: word(L.B_COMMIT) !== 0,
    commit: { buffer: word(L.B_COMMIT_BUFFER), released: word(L.B_COMMIT_RELEASED) },
  };
}

/**
 * Has queues go on where they were, each with an interrupt: what was published last may have gone unannounced. False if
 * one of them has to begin anew, since nobody knows how far its driver has seen it.
 */
function adoptQueues({ view, wasm, epoll }: Engine, pool: number, queues: readonly RunningQueue[]): boolean {
  let goesOn = true;
  for (const { pointer, index, kick, call } of queues) {
    const verdict = wasm.adoptQueue(pointer);
    if (verdict === L.BAD_DESCRIPTOR) goesOn = false;
    if (verdict === L.RING_UNMAPPED && view.getUint32(pointer + L.Q_STATE, true) === L.QUEUE_RUNNING) {
      view.setUint32(pointer + L.Q_STATE, L.QUEUE_ERROR, true);
      view.setUint32(pointer + L.Q_ERROR, L.RING_UNMAPPED, true);
    }
    writeDescriptors(view, pointer, kick, call);
    if (kick && isHeard(pool, index)) epoll.add(kick.number, EPOLLIN | EPOLLET, pointer);
    raiseOnce(view, pointer);
  }
  return goesOn;
}

/** Packet buffers of an engine that has ended, by pool. */
export type PoolBuffers = ReadonlyMap<number, { count: number; file: Fd }>;

/** Goes on with the pools of an engine that has ended. Answers those whose driver has to begin anew. */
export function adoptPools<Pool extends LoggedPool>(
  engine: Engine,
  pools: readonly Pool[],
  buffers: PoolBuffers,
): Pool[] {
  clearPlaces(engine.view);
  const batch = lastBatch(engine.view);
  const broken: Pool[] = [];
  for (const pool of pools) {
    const { domain, log, queues } = pool;
    domain.write();
    log.write();
    if (!adoptQueues(engine, pool.pool, queues.running)) broken.push(pool);
    // What was published just now is not in the log yet.
    setLogged(engine, queues, log.isOn);
    queues.writeLists();
    const buffer = buffers.get(pool.pool);
    if (buffer) queues.buffer.takeOver(buffer.count, { ...batch, file: buffer.file });
  }
  return broken;
}
