/** The serving side of the device socket: one connection is one lease, or a watcher. */
import { z } from "zod";
import { Pace } from "../../shared/async/mod.ts";
import { Channel, closeAll, type DeviceEvent, DeviceRefusal, Request } from "../../shared/device/mod.ts";
import { type Fd, peerPid, type Reactor, UnixListener } from "../../shared/os/mod.ts";
import { ALL_GUESTS_PACE, GUEST_PACE, isMemoryLost, LOST_MEMORY_COST, requestCost } from "../../shared/engine/mod.ts";
import type { Lease } from "./lease.ts";
import type { Nic } from "./nic.ts";

const Envelope = z.looseObject({ id: z.number().int() });
/** Connections at a time; each VF needs one, and each service one to watch. */
const CONNECTIONS_MAX = 600;

/** Of them, those of one guest's process that have no VF yet: each comes for one. */
const WITHOUT_VF_MAX = 64;

/** Messages answered in a row before other connections have their turn. */
const TURN_MESSAGES = 16;
/** How long a guest may be connected without a VF. */
const ATTACH_DEADLINE_MS = 5000;

/**
 * What all guests' connections share. Those that have no VF yet cannot make the engine stand still, so they have a
 * budget of their own: however many of them flood, guests with a VF do not wait for them.
 */
class GuestBudget {
  readonly withVf = new Pace(ALL_GUESTS_PACE);
  readonly withoutVf = new Pace(ALL_GUESTS_PACE);
  /** Connections without a VF, by the process that has made them. */
  readonly #waiting = new Map<number, number>();

  /** Counts a connection of `pid` until it has a VF or ends, which it says by what is answered. None: it has enough. */
  enter(pid: number): (() => void) | undefined {
    const count = this.#waiting.get(pid) ?? 0;
    // Processes of other containers cannot be told apart: all of them are 0.
    if (pid !== 0 && count >= WITHOUT_VF_MAX) return undefined;
    this.#waiting.set(pid, count + 1);
    let isCounted = true;
    return () => {
      if (!isCounted) return;
      isCounted = false;
      const left = (this.#waiting.get(pid) ?? 0) - 1;
      if (left > 0) this.#waiting.set(pid, left);
      else this.#waiting.delete(pid);
    };
  }
}

/** Serves `nic.sock`, or the socket for guests. */
export class DeviceServer {
  readonly #listener: UnixListener;
  readonly #nic: Nic;
  readonly #open = new Set<Channel>();
  readonly #done: Promise<void>;
  readonly #budget: GuestBudget | undefined;

  /** `guests`: its clients are guests, which attach with a token and see nothing but their VF. */
  constructor(nic: Nic, path: string, reactor: Reactor, guests: boolean) {
    this.#nic = nic;
    if (guests) this.#budget = new GuestBudget();
    this.#listener = UnixListener.listen(path, "seqpacket", reactor);
    this.#done = this.#accept();
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
    for (const channel of this.#open) channel.close();
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
      this.#channel.close();
      if (this.#lease) this.#nic.leases.orphan(this.#lease);
      // It counts as long as there is something of it.
      void this.#channel.socket.settled().then(() => this.#open.delete(this.#channel));
    }
  }

  async #answer(message: unknown, fds: Fd[]): Promise<void> {
    const envelope = Envelope.safeParse(message);
    if (!envelope.success) {
      closeAll(fds);
      throw new Error("Cannot answer a device message without an id");
    }
    const { id, ...body } = envelope.data;
    // Descriptors that a request does not take over are closed when it has been answered.
    const pending = [...fds];
    try {
      const request = Request.safeParse(body);
      await this.#pay(request.data, pending);
      if (!request.success) throw new DeviceRefusal("bad-request", z.prettifyError(request.error));
      const reply: number[] = [];
      const value = await this.#handle(request.data, pending, reply);
      this.#channel.send({ id, ok: true, value }, reply);
    } catch (error) {
      const code = error instanceof DeviceRefusal ? error.code : "failed";
      this.#channel.send({ id, ok: false, code, message: error instanceof Error ? error.message : String(error) });
    } finally {
      closeAll(pending);
    }
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
        this.#unwatch();
        this.#unwatch = this.#nic.watchVfs((vfs) => this.#event(vfs));
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
    this.#lease = lease;
    this.#leave();
    if (this.#budget) this.#pace = new Pace(GUEST_PACE, this.#budget.withVf);
    lease.onEnded = (reason) => {
      this.#event({ event: "revoked", reason });
      this.#channel.close();
    };
    lease.onQueueError = (index, reason) => {
      if (isMemoryLost(reason)) this.#pace?.exhaust(LOST_MEMORY_COST);
      this.#event({ event: "queueError", index, reason });
    };
    return { ...attached };
  }
}
