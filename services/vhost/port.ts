/**
 * One VF's place to attach: a Unix socket that front-ends connect to, or (role `client`) one of a front-end that waits
 * for a back-end, tried again until it is there. One front-end at a time; when it is gone the next may come.
 */
import { type Fd, type Reactor, UnixListener, UnixSocket } from "../../shared/os/mod.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { VhostUserConnection } from "../../shared/vhost_user/mod.ts";
import { ApiError, type DataPathChange, type EmulatedPath, type PortState } from "../../shared/api/mod.ts";
import type { PortContext } from "./port_context.ts";
import { isDirectPath, ringPathOf } from "./ring_backend.ts";
import { Session } from "./session.ts";
import { type KeptObject, KeptSocket, type Replicated } from "./standby/mod.ts";

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
  readonly #object: Replicated;
  readonly #started = Promise.withResolvers<void>();
  /** What a process that has ended served, until this one goes on with it. */
  #inherited: { session: Session; socket: KeptSocket } | undefined;

  /** `listener`: that of a process that has ended. The port serves nobody before `start`. */
  constructor(context: PortContext, config: PortConfig, listener?: Fd) {
    const { name, reactor, replica } = context;
    this.#context = context;
    this.#reactor = reactor;
    this.#config = config;
    const { role, path } = config;
    if (role === "server") {
      this.#listener = listener
        ? UnixListener.adopt(path, listener, reactor)
        : UnixListener.listen(path, "stream", reactor);
    }
    this.#done = this.#started.promise.then(() => role === "server" ? this.#serve() : this.#dial());
    this.#object = replica.keep(`port ${name}`, () => ({
      port: { value: { name, config: this.#config }, fds: this.#listener ? [this.#listener.fd] : [] },
    }));
  }

  /** Serves front-ends from now on. */
  start(): void {
    this.#started.resolve();
    if (this.#inherited) this.#sessionEnd = this.#run(this.#inherited.session, this.#inherited.socket);
    this.#inherited = undefined;
  }

  /** Goes on with the session of a process that has ended, as soon as the port starts. */
  async adopt(object: KeptObject): Promise<void> {
    const [connection, input] = [object.get("connection"), object.get("input")];
    if (!connection || !input) return;
    try {
      const socket = KeptSocket.adopt(connection, input, this.#reactor);
      const session = new Session(new VhostUserConnection(socket), this.#context, ringPathOf(this.#config));
      this.#inherited = { session, socket };
      await session.adopt(object);
    } catch (error) {
      this.#context.log("warn", `its front-end's session cannot be gone on with: ${(error as Error).message}`);
      this.#inherited?.socket.close();
      this.#inherited = undefined;
    }
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
      this.#sessionEnd = this.#serveNew(socket);
    }
  }

  async #dial(): Promise<void> {
    await this.#sessionEnd;
    while (!this.#closed) {
      try {
        if (this.#unsettled > 0) throw new Error("descriptors of the front-end before cannot be closed yet");
        const socket = UnixSocket.connect(this.#config.path, "stream", this.#reactor);
        this.#sessionEnd = this.#serveNew(socket);
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

  #serveNew(socket: UnixSocket): Promise<void> {
    const kept = new KeptSocket(socket);
    const session = new Session(new VhostUserConnection(kept), this.#context, ringPathOf(this.#config));
    this.#context.log("info", "a front-end connected");
    return this.#run(session, kept);
  }

  async #run(session: Session, socket: KeptSocket): Promise<void> {
    const { replica, name } = this.#context;
    this.#session = session;
    const object = replica.keep(
      replica.nextSession(),
      () => session.isKeepable ? { of: { value: name }, ...socket.parts, ...session.kept } : {},
    );
    socket.tellBy(object);
    session.onChange = () => {
      object.tell();
      return object.told ?? Promise.resolve();
    };
    const reason = await session.run();
    object.end();
    this.#lastEnd = reason;
    this.#session = undefined;
    this.#unsettled++;
    void socket.settled().then(() => this.#unsettled--);
    // A guest that drove its VF is gone, and the next one begins emulated, as every guest does.
    if (this.#config.dataPath === "guest" && !this.#closed) {
      this.#config = { ...this.#config, dataPath: "emulated" };
      this.#object.tell();
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
    try {
      await this.#session?.switchTo(ringPathOf(config));
    } catch (error) {
      const isGone = error instanceof DeviceRefusal && error.code === "no-guest";
      if (!isGone || dataPath === "guest") throw error;
      // Its guest has just gone: the next one is served so.
      await this.#sessionEnd;
    }
    this.#config = config;
    this.#object.tell();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#object.end();
    this.#started.resolve();
    this.#listener?.close();
    this.#wake();
    this.#session?.close();
    await this.#sessionEnd;
    await this.#done;
  }
}
