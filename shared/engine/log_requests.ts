/** What the owner of a pool asks about its dirty log: which pages of its guest's memory were written. */
import { Q_FLAGS, QUEUE_F_LOG, QUEUE_PAIRS_MAX } from "../layout/nic.ts";
import type { Request } from "../device/mod.ts";
import { DeviceRefusal } from "../device/refusal.ts";
import type { Fd } from "../os/mod.ts";
import type { DirtyLog } from "./dirty_log.ts";
import type { Domain } from "./domain.ts";
import type { Engine } from "./engine.ts";
import type { TenantLimits } from "./limits.ts";
import type { Queues } from "./queues.ts";
import { flavourOf } from "./queue_state.ts";

/** A request about a dirty log. */
export type LogRequest = Extract<Request, { op: "logStart" | "logStop" | "logWritten" | "queueLog" }>;

/** A pool, as its dirty log needs it. */
export interface LoggedPool {
  readonly pool: number;
  readonly domain: Domain;
  readonly log: DirtyLog;
  readonly queues: Queues;
  readonly limits: TenantLimits;
}

/** Does what a request about the dirty log of `tenant` asks. Throws DeviceRefusal, and nothing has changed then. */
export function serveLog(engine: Engine, tenant: LoggedPool, request: LogRequest, fd: Fd | undefined): void {
  const { pool, log, queues } = tenant;
  switch (request.op) {
    case "logStart":
      if (!fd) throw new DeviceRefusal("fd-count", "logStart needs a descriptor");
      return startLog(engine, tenant, request, fd);
    case "logStop": {
      const window = engine.between(() => {
        setLogged(engine, queues, false);
        return log.put(undefined, 0);
      });
      log.keep(undefined, undefined);
      if (window) engine.arena.release(window);
      return;
    }
    case "queueLog":
      if (request.index >= 2 * QUEUE_PAIRS_MAX) {
        throw new DeviceRefusal("bad-queue", `there is no queue ${request.index}`);
      }
      return engine.between(() => log.setUsed(request.index, request.log));
    case "logWritten":
      if (!log.isOn || engine.wasm.logWritten(pool, request.iova, request.size)) return;
      throw new DeviceRefusal("log-too-small", `the dirty log has no bit for 0x${request.iova.toString(16)}`);
  }
}

/** Has every write into the guest's memory logged in a file; in this one and no other, once it is in force. */
function startLog(
  engine: Engine,
  { domain, log, queues, limits }: LoggedPool,
  request: Extract<Request, { op: "logStart" }>,
  fd: Fd,
): void {
  if (queues.pointers.some((at) => flavourOf(engine.view, at) === "advanced")) {
    throw new DeviceRefusal("not-logged", "writes into advanced rings are not logged: leave the VF before it moves");
  }
  const mapped = log.map(request, fd, domain.regions, limits);
  const before = engine.between(() => {
    const window = log.put(mapped, request.size);
    setLogged(engine, queues, true);
    return window;
  });
  if (before) engine.arena.release(before);
  log.keep(request, fd);
}

/** Has what is written for all running queues logged from now on, or no longer. The engine stands still. */
export function setLogged({ view, wasm, standsBy }: Engine, { pointers }: Queues, on: boolean): void {
  // The other engine does.
  if (standsBy) return;
  for (const at of pointers) {
    view.setUint32(at + Q_FLAGS, view.getUint32(at + Q_FLAGS, true) & ~QUEUE_F_LOG | (on ? QUEUE_F_LOG : 0), true);
    if (on) wasm.logRings(at);
  }
}
