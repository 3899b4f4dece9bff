/** What of the NIC a standby is told, as changes: a piece at a time when it changes, and all of it when one comes. */
import type { UplinkState } from "../../../shared/api/mod.ts";
import type { Programme } from "../../../shared/api/nic.ts";
import type { PoolName, Request } from "../../../shared/device/mod.ts";
import type { PacketBuffer } from "../../../shared/engine/mod.ts";
import { createMemfd, type Fd, type UnixListener, writeMemoryFile } from "../../../shared/os/mod.ts";
import type { Hold } from "../hold.ts";
import type { Lease } from "../lease.ts";
import type { NicMirror } from "./messages.ts";

/** Tells of the PF's programme. It may be larger than a message, so it goes as a file. */
export function noteProgramme(mirror: NicMirror, programme: Programme): void {
  if (!mirror.isThere) return;
  const bytes = new TextEncoder().encode(JSON.stringify(programme));
  using file = createMemfd("ringfabric-programme", bytes.byteLength);
  if (!writeMemoryFile(file.number, 0, bytes)) throw new Error("Cannot write the programme for the standby");
  mirror.note({ kind: "programme", bytes: bytes.byteLength }, [file]);
}

/** Tells of a lease: who has it, and by which connection. */
export function noteLease(mirror: NicMirror, lease: Lease): void {
  const { pool, request, graceMs, hold, connection } = lease;
  if (lease.isOwn) return;
  mirror.note(
    {
      ...{ kind: "lease", pool, request, graceMs, hold: hold?.id, inherited: [...lease.inherited] },
      connection: connection && { id: connection.id, guest: connection.guest },
    },
    connection ? [connection.fd] : [],
  );
}

/** Tells what a request of a lease's owner has changed. */
export function noteRequest(mirror: NicMirror, lease: Lease, request: Request): void {
  if (!mirror.isThere || lease.isOwn) return;
  const { pool } = lease;
  switch (request.op) {
    case "dmaSet":
    case "dmaMap":
    case "dmaUnmap":
      return noteMemory(mirror, lease);
    case "queueStart":
    case "queueCall":
      return noteQueue(mirror, lease, request.index);
    case "queueStop":
      return mirror.note({ kind: "queueStopped", pool, index: request.index });
    case "logStart":
    case "logStop":
      return noteLog(mirror, lease);
    case "region":
      return noteRegisters(mirror, lease);
  }
}

function noteMemory(mirror: NicMirror, { pool, domain: { regions } }: Lease): void {
  mirror.note(
    { kind: "memory", pool, regions: regions.map(({ iova, size, offset, perm }) => ({ iova, size, offset, perm })) },
    regions.map(({ file }) => file),
  );
}

function noteLog(mirror: NicMirror, { pool, log: { there } }: Lease): void {
  const place = there && { offset: there.offset, size: there.size };
  mirror.note({ kind: "log", pool, place }, there ? [there.file] : []);
}

function noteQueue(mirror: NicMirror, { pool, queues }: Lease, index: number): void {
  const queue = queues.running.find((queue) => queue.index === index);
  if (!queue) return;
  const { request: { kept: _, ...request }, kick, call } = queue;
  mirror.note(
    { kind: "queue", pool, request: { ...request, kick: kick !== undefined, call: call !== undefined } },
    [kick, call].filter((fd) => fd !== undefined),
  );
}

function noteRegisters(mirror: NicMirror, { pool, registerPage }: Lease): void {
  if (registerPage) mirror.note({ kind: "registers", pool }, [registerPage]);
}

/** Tells of a pool's packet buffer. */
export function noteBuffer(mirror: NicMirror, { pool, count, file }: PacketBuffer): void {
  mirror.note({ kind: "buffer", pool, count }, [file]);
}

/** Tells of a hold: that it is there, or what has become of it. */
export function noteHold(mirror: NicMirror, hold: Hold): void {
  const { pool, id, token, endsAtMs, file, released } = hold;
  mirror.note({ kind: "hold", pool, id, token, endsAtMs, isEnding: released !== undefined }, [file]);
}

/** What there is of a NIC, beside its state. */
export interface Everything {
  instance: string;
  heir: number;
  state: Fd;
  life: Fd;
  listeners: readonly UnixListener[];
  programme: Programme | undefined;
  uplinks: Iterable<[PoolName, UplinkState]>;
  leases: Iterable<Lease>;
  holds: Iterable<Hold>;
  watchers: Iterable<{ id: string; fd: Fd; guest: boolean }>;
}

/** Tells all of it. */
export function noteEverything(mirror: NicMirror, all: Everything): void {
  const { instance, heir, state, life, listeners } = all;
  mirror.note(
    { kind: "nic", instance, heir, sockets: listeners.map(({ path }) => path) },
    [state, life, ...listeners.map(({ fd }) => fd)],
  );
  if (all.programme) noteProgramme(mirror, all.programme);
  for (const [pool, uplink] of all.uplinks) mirror.note({ kind: "uplink", pool, uplink });
  for (const hold of all.holds) noteHold(mirror, hold);
  for (const lease of all.leases) {
    if (lease.isOwn) continue;
    noteLease(mirror, lease);
    noteRegisters(mirror, lease);
    mirror.commit();
    noteMemory(mirror, lease);
    if (lease.log.isOn) noteLog(mirror, lease);
    mirror.commit();
    for (const { index } of lease.queues.running) noteQueue(mirror, lease, index);
    const { there } = lease.queues.buffer;
    if (there) noteBuffer(mirror, there);
    mirror.commit();
  }
  for (const { id, fd, guest } of all.watchers) mirror.note({ kind: "watch", connection: { id, guest } }, [fd]);
}
