/** One service as a child process: started, waited for, started again if it dies, stopped. */
import { log, READY_PREFIX } from "../../shared/api/mod.ts";
import { telemetryOf } from "./telemetry.ts";

/** How a service is started. */
export interface ChildSpec {
  name: string;
  script: string;
  permissions: string[];
  args: string[];
  /** What it alone gets of secrets. */
  env?: Record<string, string>;
}

const RESTART_PAUSE_MS = 100;
/** Deaths within RESTART_WINDOW_MS after which the fabric gives up. */
const RESTARTS_MAX = 5;
const RESTART_WINDOW_MS = 30_000;
const STOP_DEADLINE_MS = 5000;

/** Lines of a stream. */
async function* lines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const chunk of stream.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + chunk).split("\n");
    rest = parts.pop() ?? "";
    yield* parts;
  }
  if (rest) yield rest;
}

/** A service that is kept running. */
export class Child {
  readonly spec: ChildSpec;
  readonly #print: (line: string) => void;
  readonly #ready = Promise.withResolvers<Record<string, unknown>>();
  readonly #failed = Promise.withResolvers<never>();
  #process: Deno.ChildProcess | undefined;
  #started = false;
  #stopping = false;
  #deaths: number[] = [];
  #lastLine = "";
  /** What it said before it was up. */
  readonly #early: string[] = [];
  /** Lines that wait for tell(); undefined once it was called. */
  #untold: string[] | undefined = [];
  readonly #done: Promise<void>;

  /** `print`: where its lines go. */
  constructor(spec: ChildSpec, print: (line: string) => void) {
    this.spec = spec;
    this.#print = print;
    this.#failed.promise.catch(() => {});
    this.#ready.promise.catch(() => {});
    this.#done = this.#keep().catch((error) => {
      this.#ready.reject(error);
      this.#failed.reject(error);
    });
  }

  /** What the service says about itself, once it is up. Rejects with its own words if it cannot start. */
  get ready(): Promise<Record<string, unknown>> {
    return this.#ready.promise;
  }

  /** Rejects when the service dies too often. */
  get failed(): Promise<never> {
    return this.#failed.promise;
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /**
   * Prints what the service has said since it was up, and from now on every line at once. Until then its lines
   * wait: beside a service that cannot start, the others' complaints about it would hide the reason.
   */
  tell(): void {
    for (const line of this.#untold ?? []) this.#print(line);
    this.#untold = undefined;
  }

  #say(line: string): void {
    if (this.#untold === undefined) this.#print(line);
    else this.#untold.push(line);
  }

  async #keep(): Promise<void> {
    while (!this.#stopping) {
      const code = await this.#runOnce();
      if (this.#stopping) return;
      if (!this.#started) {
        this.#ready.reject(new Error(this.#lastLine || `${this.spec.name} ended with code ${code}`));
        return;
      }
      // A signal to the whole group may have reached the child before its supervisor.
      await new Promise((resolve) => setTimeout(resolve, RESTART_PAUSE_MS));
      if (this.#stopping) return;
      const now = Date.now();
      this.#deaths = [...this.#deaths.filter((at) => now - at < RESTART_WINDOW_MS), now];
      log("warn", "up", `${this.spec.name} ended with code ${code}; starting it again`);
      if (this.#deaths.length > RESTARTS_MAX) {
        this.#failed.reject(
          new Error(`${this.spec.name} died ${this.#deaths.length} times within 30 s: ${this.#lastLine}`),
        );
        return;
      }
    }
  }

  async #runOnce(): Promise<number> {
    const { name, script, permissions, args, env } = this.spec;
    // Nobody inherits the operator's token.
    const { RINGFABRIC_TOKEN: _token, RINGFABRIC_NEW_FABRIC: _new, ...inherited } = Deno.env.toObject();
    const process = new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", ...permissions, script, ...args],
      // The service ends when this pipe does: also if this process is killed.
      stdin: "piped",
      clearEnv: true,
      env: {
        ...inherited,
        ...telemetryOf(name, inherited),
        RINGFABRIC_SUPERVISED: "1",
        // A whole new fabric: no guest of an earlier run is left. A child that is started again is in the same fabric.
        ...(this.#started ? {} : { RINGFABRIC_NEW_FABRIC: "1" }),
        ...env,
      },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#process = process;
    const reading = [this.#readOutput(process.stdout), this.#readErrors(process.stderr)];
    const { code, signal } = await process.status;
    await Promise.all(reading);
    return signal === null ? code : 128;
  }

  async #readOutput(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const line of lines(stream)) {
      if (!line.startsWith(READY_PREFIX)) {
        this.#say(line);
        continue;
      }
      this.#started = true;
      for (const early of this.#early.splice(0)) this.#say(early);
      this.#ready.resolve(JSON.parse(line.slice(READY_PREFIX.length)) as Record<string, unknown>);
    }
  }

  async #readErrors(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const line of lines(stream)) {
      if (line.trim() === "") continue;
      // What Deno says of its own end is more than a line, and the first one is the reason.
      if (line.startsWith(`${this.spec.name}:`) || /^error: /.test(line) || this.#lastLine === "") {
        this.#lastLine = line;
      }
      // Before it is up it may be about to say why it cannot be: that is for `up` to say, in one line.
      if (this.#started) this.#say(line);
      else this.#early.push(line);
    }
  }

  /** Tells the service that all of them are to end: a signal to it is the same word. It ends when its turn comes. */
  async tellEnd(): Promise<void> {
    this.#stopping = true;
    const writer = this.#process?.stdin.getWriter();
    await writer?.write(Uint8Array.of(0)).catch(() => {});
    writer?.releaseLock();
  }

  /** Ends the service: politely, then not. */
  async stop(): Promise<void> {
    await this.tellEnd();
    // Its standard input is its line to here: it stops when that ends.
    await this.#process?.stdin.close().catch(() => {});
    const timer = setTimeout(() => this.#kill(), STOP_DEADLINE_MS);
    await this.#done;
    clearTimeout(timer);
  }

  #kill(): void {
    log("warn", "up", `${this.spec.name} has not ended within ${STOP_DEADLINE_MS / 1000} s: killing it`);
    try {
      this.#process?.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }
}
