/**
 * The side of a process that has a standby: it tells it of every change before anybody is answered. Without a standby
 * nothing of this costs anything. A standby that does not keep up is let go, and has to begin anew.
 *
 * Only one process may ever drive the rings. CTL_HEIR, in the memory that both have, names the standby that takes over if
 * this process dies. It is cleared before a standby is let go, and before this process ends on purpose.
 */
import { log, type StandbyState } from "../api/mod.ts";
import { Channel } from "../device/mod.ts";
import { CTL, CTL_HEIR } from "../layout/nic.ts";
import { duplicateFd, type Fd, type UnixListener, type UnixSocket } from "../os/mod.ts";
import type { Complete, Entry, FromStandby } from "./messages.ts";

/** How long a standby may take to read what it is told. */
const STALL_MS_MAX = 2000;
const STALL_LOOK_MS = 1;
/** How long a new process may take to start and to learn everything. */
const RENEW_MS_MAX = 20_000;
const RENEW_LOOK_MS = 10;
/** How long a standby may take to say that it is there. */
const CONFIRM_MS_MAX = 2000;
/** How long a process that has connected may take to say what it is. */
const HELLO_MS_MAX = 20_000;
/** Descriptors that one message may carry. */
const FDS_MAX = 64;

interface Waiting<Change> {
  message: Entry<Change> | Complete;
  fds: Fd[];
}

/** Who has a standby. */
export interface MirrorOptions {
  /** The service, as the log names it. */
  service: string;
  /** What it speaks with its standby. */
  version: number;
}

/** What a process tells whoever stands by for it. */
export class Mirror<Change> {
  readonly #view: DataView;
  readonly #options: MirrorOptions;
  #channel: Channel | undefined;
  #state: StandbyState["state"] = "none";
  #pid = 0;
  #changes: Change[] = [];
  #fds: Fd[] = [];
  #waiting: Waiting<Change>[] = [];
  #sending: Promise<void> | undefined;
  #connections = 0;
  /** Why the last one that came was turned away. */
  #refusal: string | undefined;
  #closed = false;
  /** Resolves what waits for the standby's next word that it knows everything. */
  #confirmed = () => {};
  /** Another one is expected, if none stands by. */
  #isAwaited = false;
  /** Tells everything that there is, as changes, to a standby that has come. `heir`: its number. */
  onJoin: (heir: number) => void = () => {};

  /** `view`: the engine's memory. */
  constructor(view: DataView, options: MirrorOptions) {
    this.#view = view;
    this.#options = options;
  }

  /** Whether a standby stands ready, and which process it is. */
  get standby(): StandbyState {
    return { state: this.#state, ...(this.#state === "none" ? {} : { pid: this.#pid }) };
  }

  /** The service, as the log names it. */
  get service(): string {
    return this.#options.service;
  }

  /** Whether there is one that has to be told. */
  get isThere(): boolean {
    return this.#channel !== undefined;
  }

  /** A name for a connection that no other has, in this process or in the one before. */
  nextConnection(): string {
    return `${Deno.pid}.${++this.#connections}`;
  }

  /** Notes a change and its descriptors, which stay the caller's. It goes with the next `commit`, at the end of this turn. */
  note(change: Change, fds: readonly Fd[] = []): void {
    if (!this.#channel) return;
    if (this.#fds.length + fds.length > FDS_MAX) this.commit();
    if (this.#changes.length === 0) queueMicrotask(() => this.commit());
    this.#fds.push(...fds.map(({ number }) => duplicateFd(number)));
    this.#changes.push(change);
  }

  /** Tells what was noted, and how the request that did it is answered. */
  commit(answered?: Entry<Change>["answered"]): void {
    if (!this.#channel || (this.#changes.length === 0 && !answered)) return;
    const [changes, fds] = [this.#changes, this.#fds];
    [this.#changes, this.#fds] = [[], []];
    this.#send({ message: { changes, ...(answered ? { answered } : {}) }, fds });
  }

  /** Pending while the standby has not been told of everything: nobody is answered before. */
  get told(): Promise<void> | undefined {
    return this.#sending;
  }

  #send(waiting: Waiting<Change>): void {
    this.#waiting.push(waiting);
    if (this.#sending || this.#sendSome()) return;
    this.#sending = this.#sendRest().finally(() => this.#sending = undefined);
  }

  /** Sends what the socket takes; true if that was all. */
  #sendSome(): boolean {
    try {
      for (let first = this.#waiting[0]; first; first = this.#waiting[0]) {
        if (!this.#channel?.trySend(first.message, first.fds.map(({ number }) => number))) return false;
        this.#waiting.shift();
        for (const fd of first.fds) fd.close();
      }
    } catch (error) {
      this.#letGo((error as Error).message);
    }
    return true;
  }

  async #sendRest(): Promise<void> {
    let since = performance.now();
    for (;;) {
      const before = this.#waiting.length;
      await new Promise((resolve) => setTimeout(resolve, STALL_LOOK_MS));
      if (this.#sendSome()) return;
      if (this.#waiting.length < before) since = performance.now();
      else if (performance.now() - since > STALL_MS_MAX) return this.#letGo("it does not read what it is told");
    }
  }

  /**
   * Lets the standby go and waits for another one, which is a new process of the program as it is now; answers its pid.
   * One that has died a moment ago is waited for first. Throws why there is none: then everything is as it was, without
   * a standby.
   */
  async renew(): Promise<number> {
    const deadline = performance.now() + RENEW_MS_MAX;
    if (!this.#channel) {
      if (!this.#isAwaited) throw new Error("no process stands by: start the fabric without --no-standby");
      await this.#untilReady(0, deadline);
    }
    const before = this.#pid;
    this.#letGo("it is replaced");
    await this.#untilReady(before, deadline);
    return this.#pid;
  }

  /**
   * Whether the standby answers: its death is seen some tens of milliseconds late, and one that is stopped never says so.
   * A standby that does not answer is let go.
   */
  async confirm(): Promise<boolean> {
    const channel = this.#channel;
    if (this.#state !== "ready" || !channel) return false;
    const answer = Promise.withResolvers<boolean>();
    this.#confirmed = () => answer.resolve(true);
    const timer = setTimeout(() => answer.resolve(false), CONFIRM_MS_MAX);
    this.#send({ message: { complete: true }, fds: [] });
    const isThere = await answer.promise.finally(() => clearTimeout(timer));
    if (this.#channel !== channel) return false;
    if (!isThere) this.#letGo("it does not answer");
    return isThere;
  }

  /** Waits until one stands by that is not process `before`. Throws why there is none. */
  async #untilReady(before: number, deadline: number): Promise<void> {
    this.#refusal = undefined;
    while (this.#state !== "ready" || this.#pid === before) {
      if (this.#refusal !== undefined) throw new Error(this.#refusal);
      if (performance.now() > deadline) throw new Error(`no new process was ready within ${RENEW_MS_MAX / 1000} s`);
      await new Promise((resolve) => setTimeout(resolve, RENEW_LOOK_MS));
    }
  }

  /** From now on nobody takes over. */
  #letGo(reason: string): void {
    this.#view.setUint32(CTL + CTL_HEIR, 0, true);
    if (!this.#channel) return;
    if (!this.#closed) log("warn", this.#options.service, `process ${this.#pid} no longer stands by: ${reason}`);
    this.#channel.close();
    this.#channel = undefined;
    this.#confirmed();
    this.#state = "none";
    this.#changes = [];
    for (const fd of [...this.#fds, ...this.#waiting.flatMap(({ fds }) => fds)]) fd.close();
    [this.#fds, this.#waiting] = [[], []];
  }

  /** Serves those who come to stand by, one at a time; the others wait at the door. */
  async serve(listener: UnixListener): Promise<void> {
    this.#isAwaited = true;
    for (;;) {
      const socket = await listener.accept();
      if (!socket) return;
      await this.#serveOne(socket).catch((error) => this.#letGo((error as Error).message));
      this.#letGo("it has ended");
      socket.close();
    }
  }

  async #serveOne(socket: UnixSocket): Promise<void> {
    const channel = new Channel(socket);
    const timer = setTimeout(() => channel.close(), HELLO_MS_MAX);
    const hello = (await channel.receive().finally(() => clearTimeout(timer)))?.message as FromStandby | undefined;
    if (!hello || !("standsBy" in hello)) return;
    const { service, version } = this.#options;
    if (hello.standsBy !== version) {
      this.#refusal = `process ${hello.pid} cannot stand by: it speaks version ${hello.standsBy}, not ${version}`;
      return log("warn", service, this.#refusal);
    }
    if (this.#closed) return;
    this.#channel = channel;
    this.#state = "syncing";
    this.#pid = hello.pid;
    const heir = crypto.getRandomValues(new Uint32Array(1))[0] || 1;
    this.onJoin(heir);
    this.commit();
    this.#send({ message: { complete: true }, fds: [] });
    for (;;) {
      const packet = await channel.receive();
      if (!packet || this.#channel !== channel) return;
      if (!("ready" in (packet.message as FromStandby))) continue;
      this.#confirmed();
      if (this.#state === "ready") continue;
      this.#state = "ready";
      this.#view.setUint32(CTL + CTL_HEIR, heir, true);
      log("info", service, `process ${hello.pid} stands by`);
    }
  }

  /** This process ends on purpose: nobody takes over. */
  close(): void {
    this.#closed = true;
    this.#letGo("");
  }
}
