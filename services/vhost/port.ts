/**
 * One VF's place to attach: a Unix socket that front-ends connect to, or (role `client`) one of a front-end that waits
 * for a back-end, tried again until it is there. One front-end at a time; when it is gone the next may come.
 */
import { type Reactor, UnixListener, UnixSocket } from "../../shared/os/mod.ts";
import { VhostUserConnection } from "../../shared/vhost_user/mod.ts";
import { ApiError, type DataPathChange, type EmulatedPath, type PortState } from "../../shared/api/mod.ts";
import type { PortContext } from "./port_context.ts";
import { isDirectPath, ringPathOf } from "./ring_backend.ts";
import { Session } from "./session.ts";

const RECONNECT_MS = 500;
/** How long a new front-end waits for the end of one that has just died. */
const HANDOVER_MS = 1000;

/** How a port gets its connections, and who serves their rings. */
export type PortConfig = Pick<PortState, "role" | "path" | "dataPath" | "emulatedPath">;

/** A VF's vhost-user port. */
export class Port {
  readonly #context: PortContext;
  readonly #reactor: Reactor;
  #config: PortConfig;
  #listener: UnixListener | undefined;
  #session: Session | undefined;
  #sessionEnd: Promise<void> = Promise.resolve();
  /** Front-ends that have gone and whose descriptors are not all closed yet. */
  #unsettled = 0;
  #lastEnd: string | undefined;
  /** Told when the configuration has changed by itself. */
  onConfig: (config: PortConfig) => void = () => {};
  #closed = false;
  #wake: () => void = () => {};
  readonly #done: Promise<void>;

  constructor(context: PortContext, config: PortConfig) {
    this.#context = context;
    this.#reactor = context.reactor;
    this.#config = config;
    if (config.role === "server") this.#listener = UnixListener.listen(config.path, "stream", context.reactor);
    this.#done = config.role === "server" ? this.#serve() : this.#dial();
  }

  /** What the API shows. */
  get state(): PortState {
    const emulatedPath = this.#emulatedPath;
    return {
      port: this.#context.name,
      ...this.#config,
      ...(emulatedPath === undefined ? {} : { emulatedPath }),
      connected: this.#session !== undefined,
      ...(this.#lastEnd === undefined ? {} : { lastEnd: this.#lastEnd }),
      ...(this.#session ? { session: this.#session.state } : {}),
    };
  }

  /** How frames go in emulated mode: as the session has it, which may not have got what was chosen. */
  get #emulatedPath(): EmulatedPath | undefined {
    const path = this.#session?.path;
    if (path === undefined || path === "passthrough" || path === "guest") return this.#config.emulatedPath;
    return isDirectPath(path) ? path : this.#config.emulatedPath && "copy";
  }

  async #serve(): Promise<void> {
    for (;;) {
      const socket = await this.#listener?.accept();
      if (!socket) return;
      if (this.#session) {
        const timeout = new Promise<void>((resolve) => setTimeout(resolve, HANDOVER_MS));
        await Promise.race([this.#sessionEnd, timeout]);
      }
      if (this.#session || this.#unsettled > 0 || this.#closed) {
        const why = this.#session ? "the VF is in use" : "descriptors of the one before cannot be closed yet";
        this.#context.log("warn", `a front-end was turned away: ${why}`);
        socket.close();
        continue;
      }
      this.#sessionEnd = this.#run(socket);
    }
  }

  async #dial(): Promise<void> {
    while (!this.#closed) {
      try {
        if (this.#unsettled > 0) throw new Error("descriptors of the front-end before cannot be closed yet");
        const socket = UnixSocket.connect(this.#config.path, "stream", this.#reactor);
        this.#sessionEnd = this.#run(socket);
        await this.#sessionEnd;
      } catch (error) {
        this.#lastEnd = error instanceof Error ? error.message : String(error);
      }
      if (this.#closed) return;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, RECONNECT_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async #run(socket: UnixSocket): Promise<void> {
    const session = new Session(new VhostUserConnection(socket), this.#context, ringPathOf(this.#config));
    this.#session = session;
    this.#context.log("info", "a front-end connected");
    const reason = await session.run();
    this.#lastEnd = reason;
    this.#session = undefined;
    this.#unsettled++;
    void socket.settled().then(() => this.#unsettled--);
    // A guest that drove its VF is gone, and the next one begins emulated, as every guest does.
    if (this.#config.dataPath === "guest" && !this.#closed) {
      this.#config = { ...this.#config, dataPath: "emulated" };
      this.onConfig(this.#config);
    }
    this.#context.log("info", `the front-end's session ended: ${reason}`);
  }

  get config(): PortConfig {
    return this.#config;
  }

  /** Tells the guest what its port has become. */
  linkChanged(): void {
    if (this.#session) this.#session.link = this.#context.link();
  }

  /** Changes who serves the rings, while they run. Throws the reason if it cannot be; nothing has changed then. */
  async setDataPath({ dataPath, emulatedPath = this.#config.emulatedPath }: DataPathChange): Promise<void> {
    if (dataPath === "guest" && !this.#session) {
      throw new ApiError(409, "no guest is connected that could drive the VF by itself", "dataPath");
    }
    const config = { ...this.#config, dataPath, ...(emulatedPath === undefined ? {} : { emulatedPath }) };
    await this.#session?.switchTo(ringPathOf(config));
    this.#config = config;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#listener?.close();
    this.#wake();
    this.#session?.close();
    await this.#sessionEnd;
    await this.#done;
  }
}
