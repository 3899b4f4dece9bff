/** The serving side of the device socket: one connection is one lease, or a watcher. */
import { z } from "zod";
import { faults } from "../../shared/api/mod.ts";
import { Pace } from "../../shared/async/mod.ts";
import { Channel, closeAll, type DeviceEvent, DeviceRefusal, type Reply, Request } from "../../shared/device/mod.ts";
import { type Fd, peerPid, type Reactor, shutDown, UnixListener, UnixSocket } from "../../shared/os/mod.ts";
import { GUEST_PACE, isMemoryLost, LOST_MEMORY_COST, requestCost } from "../../shared/engine/mod.ts";
import { GuestBudget } from "./guest_budget.ts";
import type { Lease } from "./lease.ts";
import type { Nic } from "./nic.ts";
import { noteLease } from "./standby/notes.ts";

const Envelope = z.looseObject({ id: z.number().int() });
/** Connections at a time; each VF needs one, and each service one to watch. */
const CONNECTIONS_MAX = 600;

/** Messages answered in a row before other connections have their turn. */
const TURN_MESSAGES = 16;
/** How long a guest may be connected without a VF. */
const ATTACH_DEADLINE_MS = 5000;

/** A connection of a process that has ended, which this one goes on with. */
export interface InheritedConnection {
  id: string;
  fd: Fd;
  lease: Lease | undefined;
  watches: boolean;
  /** What was answered lately. */
  answers: readonly Reply[];
}

/** Answers that are kept for peers that ask again after a take-over: none has more requests at a time. */
export const ANSWERS_KEPT = 32;

/** Serves `nic.sock`, or the socket for guests. */
export class DeviceServer {
  readonly #listener: UnixListener;
  readonly #reactor: Reactor;
  readonly #nic: Nic;
  readonly #open = new Set<Channel>();
  readonly #done: Promise<void>;
  readonly #budget: GuestBudget | undefined;

  /** `guests`: its clients are guests, which attach with a token and see nothing but their VF. */
  constructor(nic: Nic, at: string | UnixListener, reactor: Reactor, guests: boolean) {
    this.#nic = nic;
    if (guests) this.#budget = new GuestBudget();
    this.#listener = typeof at === "string" ? UnixListener.listen(at, "seqpacket", reactor) : at;
    this.#reactor = reactor;
    this.#done = this.#accept();
  }

  /** The listening socket, for whoever stands by. It stays the server's. */
  get listener(): UnixListener {
    return this.#listener;
  }

  /** Goes on with a connection of a process that has ended. */
  adopt(inherited: InheritedConnection): void {
    const channel = new Channel(new UnixSocket(inherited.fd, this.#reactor));
    const connection = new Connection(this.#nic, channel, this.#open, this.#budget, () => {});
    connection.takeOver(inherited);
    void connection.serve();
  }

  async #accept(): Promise<void> {
    for (;;) {
      const socket = await this.#listener.accept();
      if (!socket) return;
      const isFull = this.#open.size >= CONNECTIONS_MAX;
      const leave = isFull ? undefined : this.#budget ? this.#budget.enter(peerPid(socket.fd.number)) : () => {};
      if (!leave) socket.close();
      else void new Connection(this.#nic, new Channel(socket), this.#open, this.#budget, leave).serve();
    }
  }

  async close(): Promise<void> {
    this.#listener.close();
    for (const channel of this.#open) {
      if (!channel.socket.fd.closed) shutDown(channel.socket.fd.number);
      channel.close();
    }
    await this.#done;
  }
}

class Connection {
  readonly #nic: Nic;
  readonly #channel: Channel;
  readonly #open: Set<Channel>;
  #lease: Lease | undefined;
  #unwatch: () => void = () => {};
  /** It has got what it came for. */
  #done = false;
  readonly #guest: boolean;
  readonly #budget: GuestBudget | undefined;
  /** What a guest may ask; the hypervisor's own services ask what they like. */
  #pace: Pace | undefined;

  /** By what name a standby knows it: only one that has a VF, or watches, is worth keeping. */
  #id: string | undefined;
  /** What was answered lately, by the process before or by this one since. */
  #answers: Reply[] | undefined;

  /** It does not wait for a VF any more. */
  readonly #leave: () => void;

  constructor(nic: Nic, channel: Channel, open: Set<Channel>, budget: GuestBudget | undefined, leave: () => void) {
    this.#leave = leave;
    this.#guest = budget !== undefined;
    this.#budget = budget;
    if (budget) this.#pace = new Pace(GUEST_PACE, budget.withoutVf);
    this.#nic = nic;
    this.#channel = channel;
    this.#open = open;
  }

  /** Goes on with a connection of a process that has ended, whose peer asks again what is unanswered. */
  takeOver({ id, lease, watches, answers }: InheritedConnection): void {
    this.#id = id;
    this.#answers = [...answers];
    if (lease) this.#take(lease);
    if (watches) this.#watch();
    this.#event({ event: "tookOver" });
  }

  async serve(): Promise<void> {
    this.#open.add(this.#channel);
    // Whoever comes for a VF asks for it at once: connections that do not would keep others out.
    const idle = this.#guest ? setTimeout(() => this.#lease ?? this.#channel.close(), ATTACH_DEADLINE_MS) : undefined;
    try {
      for (let turn = 1;; turn++) {
        const packet = await this.#channel.receive();
        if (!packet) break;
        await this.#answer(packet.message, packet.fds);
        if (this.#done) break;
        // A client that floods gives way to everybody else.
        if (turn % TURN_MESSAGES === 0) await new Promise((resolve) => setTimeout(resolve, 0));
      }
    } catch {
      // A connection that breaks, or speaks something else, ends like one whose owner died.
    } finally {
      clearTimeout(idle);
      this.#leave();
      this.#unwatch();
      this.#end();
      if (this.#lease) this.#nic.leases.orphan(this.#lease);
      // It counts as long as there is something of it.
      void this.#channel.socket.settled().then(() => this.#open.delete(this.#channel));
    }
  }

  /** Its peer sees the end, also while a standby has the socket too. */
  #end(): void {
    const { fd } = this.#channel.socket;
    if (this.#id !== undefined && !fd.closed) {
      shutDown(fd.number);
      this.#nic.mirror.note({ kind: "closed", connection: this.#id });
    }
    this.#id = undefined;
    this.#channel.close();
  }

  async #answer(message: unknown, fds: Fd[]): Promise<void> {
    const envelope = Envelope.safeParse(message);
    if (!envelope.success) {
      closeAll(fds);
      throw new Error("Cannot answer a device message without an id");
    }
    const { id, ...body } = envelope.data;
    // Asked again after a take-over. A page is answered anew: its descriptor is not among what was kept.
    const before = body.op === "region" ? undefined : this.#answers?.find((reply) => reply.id === id);
    if (before) {
      closeAll(fds);
      await this.#pay(undefined, []);
      return this.#channel.send(before);
    }
    // Descriptors that a request does not take over are closed when it has been answered.
    const pending = [...fds];
    try {
      const request = Request.safeParse(body);
      await this.#pay(request.data, pending);
      if (!request.success) throw new DeviceRefusal("bad-request", faults(request.error));
      const reply: number[] = [];
      const handled = this.#handle(request.data, pending, reply);
      // What is done at once goes to a standby together with its answer: nothing may come between.
      const value = handled instanceof Promise ? await handled : handled;
      await this.#reply({ id, ok: true, value }, reply);
    } catch (error) {
      const code = error instanceof DeviceRefusal ? error.code : "failed";
      await this.#reply({ id, ok: false, code, message: error instanceof Error ? error.message : String(error) }, []);
    } finally {
      closeAll(pending);
    }
  }

  /** Answers once a standby knows what was done, and how it is answered. */
  async #reply(reply: Reply, fds: readonly number[]): Promise<void> {
    const { mirror } = this.#nic;
    if (this.#answers?.push(reply) === ANSWERS_KEPT) this.#answers.shift();
    mirror.commit(this.#id === undefined ? undefined : { connection: this.#id, reply });
    if (mirror.told) await mirror.told;
    this.#channel.send(reply, fds);
  }

  /** Waits until the guest's budget has what the request costs, whether it will be granted or refused. */
  async #pay(request: Request | undefined, fds: Fd[]): Promise<void> {
    if (!this.#pace) return;
    // Without a VF nothing needs descriptors, and many connections that wait could use up the process's.
    if (!this.#lease) closeAll(fds.splice(0));
    await this.#pace.step(this.#lease && request ? requestCost(request) : 1);
    if (!this.#open.has(this.#channel)) throw new Error("Cannot serve a request: its connection is closed");
  }

  #event(event: DeviceEvent): void {
    try {
      this.#channel.send(event);
    } catch {
      this.#channel.close();
    }
  }

  #handle(
    request: Request,
    fds: Fd[],
    reply: number[],
  ): Record<string, unknown> | Promise<Record<string, unknown>> {
    switch (request.op) {
      case "watch":
        if (this.#guest) {
          throw new DeviceRefusal("not-allowed", "a guest attaches to its VF and does nothing else here");
        }
        this.#watch();
        return {};
      case "announce":
        if (this.#guest) throw new DeviceRefusal("not-allowed", "a guest sends its announcements by itself");
        this.#nic.announce(request.vf, request.mac);
        return {};
      case "attach":
        return this.#attach(request);
      default: {
        const lease = this.#lease;
        if (!lease) throw new DeviceRefusal("not-attached", "attach to a VF first");
        // A socket that a guest has the NIC keep could be the other end of a connection that would then never end.
        if (this.#guest && fds.some((fd) => fd.kind === "socket")) {
          throw new DeviceRefusal("bad-fd", "a guest's descriptors are eventfds and memory, no sockets");
        }
        if (request.op === "detach") this.#forgetLease();
        return this.#nic.leases.serve(lease, request, fds, reply);
      }
    }
  }

  #watch(): void {
    this.#unwatch();
    const connection = { id: this.#name(), guest: false };
    const { fd } = this.#channel.socket;
    const stop = this.#nic.watchVfs((vfs) => this.#event(vfs), { ...connection, fd });
    this.#unwatch = stop;
    this.#nic.mirror.note({ kind: "watch", connection }, [fd]);
  }

  #name(): string {
    return this.#id ??= this.#nic.mirror.nextConnection();
  }

  /** It has no VF any more. A guest comes anew for another one: connections without a VF would keep others out. */
  #forgetLease(): void {
    this.#lease = undefined;
    this.#done = this.#guest;
  }

  #attach(request: Extract<Request, { op: "attach" }>): Record<string, unknown> {
    if (this.#lease) throw new DeviceRefusal("attached", "this connection has a VF already");
    // A guest could call itself whatever it likes: who it is, is said here.
    const owner = this.#guest ? `guest (pid ${peerPid(this.#channel.socket.fd.number)})` : request.owner;
    const { lease, attached } = this.#nic.attach({ ...request, owner }, this.#guest);
    lease.isOwn = peerPid(this.#channel.socket.fd.number) === Deno.pid;
    this.#take(lease);
    noteLease(this.#nic.mirror, lease);
    return { ...attached };
  }

  /** Has the lease from now on. */
  #take(lease: Lease): void {
    this.#lease = lease;
    if (!lease.isOwn) lease.connection = { id: this.#name(), fd: this.#channel.socket.fd, guest: this.#guest };
    this.#leave();
    if (this.#budget) this.#pace = new Pace(GUEST_PACE, this.#budget.withVf);
    lease.onEnded = (reason) => {
      this.#event({ event: "revoked", reason });
      this.#end();
    };
    lease.onQueueError = (index, reason) => {
      if (isMemoryLost(reason)) this.#pace?.exhaust(LOST_MEMORY_COST);
      this.#event({ event: "queueError", index, reason });
    };
  }
}
