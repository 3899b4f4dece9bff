/**
 * The side of the NIC that stands by: it holds what the other process holds, maps the memory that it maps, and touches
 * none of it. When the other one has died it has everything to go on with.
 */
import type { UplinkState } from "../../../shared/api/mod.ts";
import {
  type Channel,
  closeAll,
  DeviceRefusal,
  type PoolName,
  type Reply,
  Request,
} from "../../../shared/device/mod.ts";
import { ringName } from "../../../shared/engine/mod.ts";
import { type Fd, type Reactor, readMemoryFile, UnixListener } from "../../../shared/os/mod.ts";
import { type Entry, Follower, take } from "../../../shared/standby/mod.ts";
import { Programme } from "../../../shared/api/nic.ts";
import { ANSWERS_KEPT, type InheritedConnection } from "../device.ts";
import type { Nic } from "../nic.ts";
import type { InheritedHold } from "./inherited.ts";
import { type Change, type KeptConnection, STANDBY_VERSION } from "./messages.ts";
import { takeShared } from "./shared_files.ts";

/** A connection that goes on here. */
interface Connection extends InheritedConnection {
  guest: boolean;
}

type Of<Kind extends Change["kind"]> = Extract<Change, { kind: Kind }>;

/** What a process that stands by knows. */
export class NicFollower extends Follower<Change> {
  readonly #nic: Nic;
  readonly #reactor: Reactor;
  #instance = "";
  /** The listening sockets, by their paths. */
  readonly sockets = new Map<string, UnixListener>();
  readonly uplinks = new Map<PoolName, UplinkState>();
  readonly connections = new Map<string, Connection>();
  readonly #holds = new Map<number, InheritedHold>();
  readonly #buffers = new Map<number, { count: number; file: Fd }>();

  /** `nic`: over an engine that stands by. */
  constructor(nic: Nic, channel: Channel, reactor: Reactor) {
    super(channel, { service: "nic", version: STANDBY_VERSION });
    this.#nic = nic;
    this.#reactor = reactor;
  }

  /** Goes on with the engine where the other one was. */
  takeOver(): void {
    this.#nic.takeOver(this.#instance, this.state, { holds: this.#holds, buffers: this.#buffers });
  }

  protected override apply({ changes, answered }: Entry<Change>, fds: Fd[]): void {
    for (const change of changes) this.#change(change, fds);
    closeAll(fds);
    const answers = answered && this.connections.get(answered.connection)?.answers as Reply[] | undefined;
    if (answers && answered && answers.push(answered.reply) > ANSWERS_KEPT) answers.shift();
  }

  /** Does what a change says; takes its descriptors out of `fds`. */
  #change(change: Change, fds: Fd[]): void {
    switch (change.kind) {
      case "nic":
        return this.#begin(change, fds);
      case "programme":
        return this.#program(change, take(fds));
      case "uplink":
        if (change.uplink.spec.kind === "none") this.uplinks.delete(change.pool);
        else this.uplinks.set(change.pool, change.uplink);
        return;
      case "lease":
        return this.#attach(change, fds);
      case "ended":
        return this.#end(change);
      case "watch":
        return void (this.#keep(change.connection, take(fds)).watches = true);
      case "closed":
        return this.#close(change.connection);
      case "hold":
        return this.#hold(change, take(fds));
      case "holdEnded":
        return forget(this.#holds, change.pool);
      case "buffer":
        forget(this.#buffers, change.pool);
        return void this.#buffers.set(change.pool, { count: change.count, file: take(fds) });
      default:
        return this.#changeLease(change, fds);
    }
  }

  #begin({ instance, heir, sockets }: Of<"nic">, fds: Fd[]): void {
    this.#instance = instance;
    this.begin(heir, take(fds), take(fds));
    for (const path of sockets) this.sockets.set(path, UnixListener.adopt(path, take(fds), this.#reactor));
  }

  #program({ bytes }: Of<"programme">, file: Fd): void {
    using programme = file;
    const text = new Uint8Array(bytes);
    if (!readMemoryFile(programme.number, 0, text)) throw new Error("the programme's file is too short");
    this.#nic.program(Programme.parse(JSON.parse(new TextDecoder().decode(text))));
  }

  #keep({ id, guest }: KeptConnection, fd: Fd): Connection {
    const before = this.connections.get(id);
    if (before) fd.close();
    const connection = before ?? { id, guest, fd, lease: undefined, watches: false, answers: [] };
    this.connections.set(id, connection);
    return connection;
  }

  #attach({ pool, request, hold, graceMs, inherited, connection }: Of<"lease">, fds: Fd[]): void {
    const terms = { hold: hold === undefined ? undefined : { id: hold }, graceMs };
    const lease = this.#nic.leases.learn(pool, request, terms);
    for (const [ring, position] of inherited) lease.inherited.set(ring, position);
    if (connection) this.#keep(connection, take(fds)).lease = lease;
  }

  #end({ pool, reason }: Of<"ended">): void {
    const lease = this.#nic.leases.of(pool);
    if (!lease) return;
    for (const connection of this.connections.values()) if (connection.lease === lease) connection.lease = undefined;
    this.#nic.leases.end(lease, reason);
    forget(this.#buffers, pool);
  }

  #close(id: string): void {
    this.connections.get(id)?.fd.close();
    this.connections.delete(id);
  }

  #hold({ pool, id, token, endsAtMs, isEnding }: Of<"hold">, file: Fd): void {
    forget(this.#holds, pool);
    this.#holds.set(pool, { id, token, endsAtMs, isEnding, file });
  }

  /** What a lease's owner has changed. */
  #changeLease(change: Of<"memory" | "log" | "registers" | "queue" | "queueStopped">, fds: Fd[]): void {
    const { leases, leases: { tenants } } = this.#nic;
    const lease = leases.of(change.pool);
    if (!lease) throw new DeviceRefusal("not-attached", `pool ${change.pool} has no lease`);
    switch (change.kind) {
      case "registers":
        return lease.learnRegisters(take(fds));
      case "memory": {
        const { regions } = change;
        return takeShared(tenants, lease, fds.splice(0, regions.length), (files) => {
          tenants.setMemory(lease, { op: "dmaSet", regions }, files);
        });
      }
      case "log": {
        const { place } = change;
        return takeShared(tenants, lease, place ? [take(fds)] : [], (files) => {
          tenants.serveLog(lease, place ? { op: "logStart", ...place } : { op: "logStop" }, files);
        });
      }
      case "queue": {
        const { index, kick, call } = change.request;
        const request = Request.parse({ ...change.request, op: "queueStart" });
        if (lease.queues.running.some((queue) => queue.index === index)) tenants.stopQueue(lease, index);
        const own = [kick ? take(fds) : undefined, call ? take(fds) : undefined];
        if (request.op !== "queueStart") return;
        tenants.startQueue(lease, request, own);
        return void lease.inherited.delete(ringName(index, request.desc));
      }
      case "queueStopped":
        tenants.stopQueue(lease, change.index);
        if (!lease.queues.isReceiving) forget(this.#buffers, change.pool);
    }
  }
}

/** Forgets what is known of a pool, and closes its file. */
function forget(of: Map<number, { file: Fd }>, pool: number): void {
  of.get(pool)?.file.close();
  of.delete(pool);
}
