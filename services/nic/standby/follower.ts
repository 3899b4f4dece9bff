/**
 * The side of the NIC that stands by: it holds what the other process holds, maps the memory that it maps, and touches
 * none of it. When the other one has died it has everything to go on with.
 */
import type { UplinkSpec } from "../../../shared/api/mod.ts";
import {
  Channel,
  closeAll,
  DeviceRefusal,
  type Packet,
  type PoolName,
  type Reply,
  Request,
} from "../../../shared/device/mod.ts";
import { ENGINE_THREADS, ringName } from "../../../shared/engine/mod.ts";
import { CTL, CTL_HEIR } from "../../../shared/layout/nic.ts";
import {
  Fd,
  OsError,
  type Reactor,
  readMemoryFile,
  UnixListener,
  UnixSocket,
  whenDead,
} from "../../../shared/os/mod.ts";
import { Programme } from "../../../shared/api/nic.ts";
import { ANSWERS_KEPT, type InheritedConnection } from "../device.ts";
import type { Nic } from "../nic.ts";
import type { InheritedHold } from "./inherited.ts";
import { type Change, type Complete, type Entry, type KeptConnection, STANDBY_VERSION } from "./messages.ts";
import { takeShared } from "./shared_files.ts";

const NO_SUCH_FILE = 2;
const CONNECTION_REFUSED = 111;

/** A connection that goes on here. */
interface Connection extends InheritedConnection {
  guest: boolean;
}

type Of<Kind extends Change["kind"]> = Extract<Change, { kind: Kind }>;

/** Connects to the NIC's process that runs, if one does. */
export function findActive(path: string, reactor: Reactor): Channel | undefined {
  try {
    return new Channel(UnixSocket.connect(path, "seqpacket", reactor));
  } catch (error) {
    if (error instanceof OsError && [NO_SUCH_FILE, CONNECTION_REFUSED].includes(error.errno)) return undefined;
    throw error;
  }
}

/** What a process that stands by knows. */
export class Follower {
  readonly #nic: Nic;
  readonly #channel: Channel;
  readonly #reactor: Reactor;
  #instance = "";
  #heir = 0;
  #state: Fd | undefined;
  #life: Fd | undefined;
  #isComplete = false;
  /** The listening sockets, by their paths. */
  readonly sockets = new Map<string, UnixListener>();
  readonly uplinks = new Map<PoolName, UplinkSpec>();
  readonly connections = new Map<string, Connection>();
  readonly #holds = new Map<number, InheritedHold>();
  readonly #buffers = new Map<number, { count: number; file: Fd }>();

  /** `nic`: over an engine that stands by. */
  constructor(nic: Nic, channel: Channel, reactor: Reactor) {
    this.#nic = nic;
    this.#channel = channel;
    this.#reactor = reactor;
  }

  /** Learns everything there is. Throws what keeps this process from standing by. */
  async join(): Promise<void> {
    this.#channel.send({ standsBy: STANDBY_VERSION, pid: Deno.pid });
    while (!this.#isComplete) {
      const packet = await this.#channel.receive().catch(() => undefined);
      if (!packet) throw new Error("the NIC's process that runs does not want a standby of this version");
      this.#learn(packet);
    }
    this.#channel.send({ ready: true });
  }

  /** Learns what changes, until the other process is gone. False: it has ended on purpose, or let this one go. */
  async follow(): Promise<boolean> {
    let isDead = false;
    let wake = () => {};
    // What waits there holds this process's end up by nothing: it is a thread of the runtime's.
    void whenDead(this.#lifeFile, ENGINE_THREADS).then(() => {
      isDead = true;
      wake();
    });
    while (!isDead) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        this.#channel.socket.readable().then(resolve, resolve);
      });
      if (!this.#learnAll()) break;
    }
    // The last that it said before it died.
    this.#learnAll();
    const word = new Uint32Array(1);
    const isThere = readMemoryFile(this.#stateFile.number, CTL + CTL_HEIR, new Uint8Array(word.buffer));
    return isThere && word[0] === this.#heir;
  }

  /** Resolves when the kernel has closed all that the other process had open. */
  async gone(): Promise<void> {
    while (await this.#channel.receive().catch(() => undefined));
    this.#channel.close();
  }

  /** Goes on with the engine where the other one was. */
  takeOver(): void {
    this.#nic.takeOver(this.#instance, this.#stateFile, { holds: this.#holds, buffers: this.#buffers });
  }

  /** Learns what has been said; false at its end. */
  #learnAll(): boolean {
    for (;;) {
      let packet;
      try {
        packet = this.#channel.tryReceive();
      } catch {
        return false;
      }
      if (packet === "nothing") return true;
      if (!packet) return false;
      this.#learn(packet);
    }
  }

  get #lifeFile(): Fd {
    if (!this.#life) throw new Error("the NIC's process that runs has not said how it is seen to die");
    return this.#life;
  }

  get #stateFile(): Fd {
    if (!this.#state) throw new Error("the NIC's process that runs has not said where its state is");
    return this.#state;
  }

  #learn(packet: Packet): void {
    // They are not foreign: whoever sent them closes them as plainly.
    const fds = packet.fds.map((fd) => fd.kind === "socket" ? new Fd(fd.detach()) : fd);
    const message = packet.message as Entry | Complete;
    if ("complete" in message) this.#isComplete = true;
    else this.#apply(message, fds);
  }

  #apply({ changes, answered }: Entry, fds: Fd[]): void {
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
        if (change.spec.kind === "none") this.uplinks.delete(change.pool);
        else this.uplinks.set(change.pool, change.spec);
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
    this.#heir = heir;
    this.#state = take(fds);
    this.#life = take(fds);
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

function take(fds: Fd[]): Fd {
  const fd = fds.shift();
  if (!fd) throw new Error("a change came without its descriptor");
  return fd;
}

/** Forgets what is known of a pool, and closes its file. */
function forget(of: Map<number, { file: Fd }>, pool: number): void {
  of.get(pool)?.file.close();
  of.delete(pool);
}
