/**
 * The engine: frames from the queues that send, through the switch, into the queues that receive. All state is in the
 * arena (shared/layout/nic.ts), so the same module also serves the control thread, which calls the functions beside `run`
 * while the engine is parked.
 */
export { announce } from "./announce.ts";
export { setContext } from "./context.ts";
export { fillDirect } from "./direct/host.ts";
export { settleReceived, settleSent, withdrawOffered } from "./direct/recall.ts";
export { discardHeld, hasRoom, releaseHeld } from "./hold.ts";
export { adoptQueue, endAdoption } from "./queue/adopt.ts";
export { logRings, logWritten } from "./queue/dirty_log.ts";
export { forgetRegions } from "./queue/domain.ts";
export { fillDriverRx, isDriverTxEmpty } from "./queue/driver.ts";
export { forgetDeferral } from "./queue/coalesce.ts";
export { raiseBeforeSleep } from "./queue/deferred.ts";
export { continueQueue, resumeInflight, resumeQueue } from "./queue/continue.ts";
export { bindRings, positionOf, startQueue, unfetched } from "./queue/start.ts";
export { calibrate } from "./schedule/clock.ts";
export { waitsForRoom } from "./schedule/again.ts";
export { coolAll, hasWork, heat } from "./schedule/heat.ts";
export { run } from "./schedule/pass.ts";
export { clearFilters, findPool, insertFilter, removeFilter } from "./switch/filter.ts";
export { filterHome } from "./switch/filter_table.ts";
export { ageFilters, claimAddress } from "./switch/learn.ts";
