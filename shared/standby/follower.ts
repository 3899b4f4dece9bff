/**
 * The side that stands by: it learns what the other process tells it, and when that one has died it has everything to go on
 * with. What it learns is its service's own; how it learns, and how it sees the death, is the same for all.
 */
import { oneLine } from "../api/mod.ts";
import { Channel, type Packet } from "../device/mod.ts";
import { ENGINE_THREADS } from "../engine/mod.ts";
import { CTL, CTL_HEIR } from "../layout/nic.ts";
import { alone, Fd, OsError, type Reactor, readMemoryFile, UnixListener, UnixSocket, whenDead } from "../os/mod.ts";
import type { Complete, Entry } from "./messages.ts";
import type { MirrorOptions } from "./mirror.ts";

const NO_SUCH_FILE = 2;
const CONNECTION_REFUSED = 111;
const CONNECTION_RESET = 104;
/** How long the other process may take to tell everything. */
const JOIN_MS_MAX = 20_000;
/** How long after the end of its connection the other process's threads may still live. */
const DEATH_MS_MAX = 5000;

/** Connects to the service's process that runs, if one does. */
function findActive(path: string, reactor: Reactor): Channel | undefined {
  try {
    return new Channel(UnixSocket.connect(path, "seqpacket", reactor, true));
  } catch (error) {
    if (error instanceof OsError && [NO_SUCH_FILE, CONNECTION_REFUSED].includes(error.errno)) return undefined;
    throw error;
  }
}

/** The service's process that runs, if one does; else the place where those come who stand by for this one. */
export function claim(path: string | undefined, reactor: Reactor): { active?: Channel; standbys?: UnixListener } {
  if (path === undefined) return {};
  // Two that start at once, such as after both have died, would each take the other's place for one left by the dead.
  return alone(path, () => {
    const active = findActive(path, reactor);
    return active ? { active } : { standbys: UnixListener.listen(path, "seqpacket", reactor) };
  });
}

/** Takes the next descriptor of an entry. */
export function take(fds: Fd[]): Fd {
  const fd = fds.shift();
  if (!fd) throw new Error("a change came without its descriptor");
  return fd;
}

/** What `promise` brings; undefined if that takes longer than `ms`. */
async function inTime<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), ms);
  return await Promise.race([promise, late.promise]).finally(() => clearTimeout(timer));
}

/** A process that stands by. */
export abstract class Follower<Change> {
  readonly #channel: Channel;
  readonly #options: MirrorOptions;
  #heir = 0;
  #state: Fd | undefined;
  #life: Fd | undefined;
  #isComplete = false;
  /** Its last wait for a message, which may go on when the other process has died. */
  #waiting = Promise.resolve();

  constructor(channel: Channel, options: MirrorOptions) {
    this.#channel = channel;
    this.#options = options;
  }

  /** Does what an entry says; takes its descriptors over. */
  protected abstract apply(entry: Entry<Change>, fds: Fd[]): void;

  /** Who takes over, where the engine's state is, and how its threads are seen to die. */
  protected begin(heir: number, state: Fd, life: Fd): void {
    [this.#heir, this.#state, this.#life] = [heir, state, life];
  }

  /** Learns everything there is. Throws what keeps this process from standing by. */
  async join(): Promise<void> {
    const { service, version } = this.#options;
    this.#channel.send({ standsBy: version, pid: Deno.pid });
    if (await inTime(this.#learnEverything(), JOIN_MS_MAX) === undefined) {
      throw new Error(`the ${service} process that runs does not answer: it is stopped, or has another standby`);
    }
  }

  async #learnEverything(): Promise<true> {
    while (this.#learnAll()) {
      if (this.#isComplete) return true;
      await this.#channel.socket.readable();
    }
    const { service } = this.#options;
    throw new Error(`the ${service} process that runs ended, or let this one go, before it had told everything`);
  }

  /**
   * Learns what changes, until the other process is gone. False: it has ended on purpose, or let this one go. Throws why
   * this process does not know everything any more: then it cannot go on for the other one, which may well live.
   */
  async follow(): Promise<boolean> {
    let isDead = false;
    let wake = () => {};
    // What waits there holds this process's end up by nothing: it is a thread of the runtime's.
    const death = whenDead(this.#lifeFile, ENGINE_THREADS).then(() => {
      isDead = true;
      wake();
      return true;
    });
    while (!isDead && this.#learnAll()) {
      await new Promise<void>((resolve) => {
        wake = resolve;
        this.#waiting = this.#channel.socket.readable().then(resolve, resolve);
      });
    }
    // The last that it said before it died.
    this.#learnAll();
    if (!this.#isHeir()) return false;
    // A process that dies gives its locks up before it closes what it had open.
    if (await inTime(death, DEATH_MS_MAX)) return true;
    throw new Error(`the ${this.#options.service} process that runs has closed its connection, and lives`);
  }

  /** Whether the other process has named this one to take over. */
  #isHeir(): boolean {
    const word = new Uint32Array(1);
    const isThere = readMemoryFile(this.state.number, CTL + CTL_HEIR, new Uint8Array(word.buffer));
    return isThere && word[0] === this.#heir;
  }

  /** Resolves when the kernel has closed all that the other process had open. */
  async gone(): Promise<void> {
    await this.#waiting;
    while (await this.#channel.receive().catch(() => undefined));
    this.#channel.close();
  }

  /** Learns what has been said; false at its end. Throws what keeps this process from it. */
  #learnAll(): boolean {
    try {
      for (;;) {
        const packet = this.#next();
        if (packet === "nothing") return true;
        if (!packet) return false;
        this.#learn(packet);
      }
    } catch (error) {
      throw new Error(`this process cannot stand by any more: ${oneLine(error)}`, { cause: error });
    }
  }

  /** The next that has been said, if anything has; undefined at its end. */
  #next(): Packet | "nothing" | undefined {
    try {
      return this.#channel.tryReceive();
    } catch (error) {
      // It is said once, before what has come and was not read: the end is behind that.
      if (error instanceof OsError && error.errno === CONNECTION_RESET) return this.#channel.tryReceive();
      throw error;
    }
  }

  get #lifeFile(): Fd {
    if (!this.#life) throw new Error(`the ${this.#options.service} process has not said how it is seen to die`);
    return this.#life;
  }

  /** Says that this process knows everything. */
  #answer(): void {
    try {
      this.#channel.send({ ready: true });
    } catch (error) {
      // Nobody is there to hear it. What that means the next look at the connection says.
      if (!(error instanceof OsError)) throw error;
    }
  }

  /** The memory file of the engine's state. */
  protected get state(): Fd {
    if (!this.#state) throw new Error(`the ${this.#options.service} process has not said where its state is`);
    return this.#state;
  }

  #learn({ message: said, fds }: Packet): void {
    const message = said as Entry<Change> | Complete;
    if (!("complete" in message)) return this.apply(message, fds);
    this.#isComplete = true;
    this.#answer();
  }
}
