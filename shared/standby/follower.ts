/**
 * The side that stands by: it learns what the other process tells it, and when that one has died it has everything to go on
 * with. What it learns is its service's own; how it learns, and how it sees the death, is the same for all.
 */
import { Channel, type Packet } from "../device/mod.ts";
import { ENGINE_THREADS } from "../engine/mod.ts";
import { CTL, CTL_HEIR } from "../layout/nic.ts";
import { alone, Fd, OsError, type Reactor, readMemoryFile, UnixListener, UnixSocket, whenDead } from "../os/mod.ts";
import type { Complete, Entry } from "./messages.ts";
import type { MirrorOptions } from "./mirror.ts";

const NO_SUCH_FILE = 2;
const CONNECTION_REFUSED = 111;

/** Connects to the service's process that runs, if one does. */
function findActive(path: string, reactor: Reactor): Channel | undefined {
  try {
    return new Channel(UnixSocket.connect(path, "seqpacket", reactor));
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

/** A process that stands by. */
export abstract class Follower<Change> {
  readonly #channel: Channel;
  readonly #options: MirrorOptions;
  #heir = 0;
  #state: Fd | undefined;
  #life: Fd | undefined;
  #isComplete = false;

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
    while (!this.#isComplete) {
      const packet = await this.#channel.receive().catch(() => undefined);
      if (!packet) throw new Error(`the ${service} process that runs does not want a standby of this version`);
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
    const isThere = readMemoryFile(this.state.number, CTL + CTL_HEIR, new Uint8Array(word.buffer));
    return isThere && word[0] === this.#heir;
  }

  /** Resolves when the kernel has closed all that the other process had open. */
  async gone(): Promise<void> {
    while (await this.#channel.receive().catch(() => undefined));
    this.#channel.close();
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
    if (!this.#life) throw new Error(`the ${this.#options.service} process has not said how it is seen to die`);
    return this.#life;
  }

  /** The memory file of the engine's state. */
  protected get state(): Fd {
    if (!this.#state) throw new Error(`the ${this.#options.service} process has not said where its state is`);
    return this.#state;
  }

  #learn(packet: Packet): void {
    // They are not foreign: whoever sent them closes them as plainly.
    const fds = packet.fds.map((fd) => fd.kind === "socket" ? new Fd(fd.detach()) : fd);
    const message = packet.message as Entry<Change> | Complete;
    if ("complete" in message) this.#isComplete = true;
    else this.apply(message, fds);
  }
}
