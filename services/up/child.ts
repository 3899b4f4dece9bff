/** One service as a child process: started, waited for, started again if it dies, stopped. */
import { log, oneLine, READY_PREFIX } from "../../shared/api/mod.ts";
import { type LifePlace, whenProcessDead } from "../../shared/os/mod.ts";
import { BackOff } from "./back_off.ts";
import { telemetryOf } from "./telemetry.ts";

/** How a service is started. */
export interface ChildSpec {
  name: string;
  script: string;
  permissions: string[];
  /** How V8 is to work for it. */
  v8Flags?: string[];
  args: string[];
  /** What it alone gets of secrets. */
  env?: Record<string, string>;
}

/** How long a signal to the whole group may take to reach its supervisor too. */
const SETTLE_MS = 100;
/** Signals that end a whole group: whoever sends another one to a service means it alone. */
const GROUP_SIGNALS: readonly (Deno.Signal | null)[] = ["SIGINT", "SIGTERM", "SIGHUP"];
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

/** How one run of a service ended. */
interface End {
  /** In words, such as `was killed by SIGKILL`. */
  how: string;
  /** For how long it was ready; 0 if it never was. */
  readyMs: number;
  /** Whether the whole fabric may be ending with it. */
  mayBeAll: boolean;
}

/** What a service's supervisor does for it. */
export interface ChildParts {
  /** Where its lines go. */
  print(line: string): void;
  /** Why nothing that is started again can do its work, if that is so. */
  hopeless(): string | undefined;
}

function v8Arguments(flags: readonly string[] = []): string[] {
  return flags.length === 0 ? [] : [`--v8-flags=${flags.join(",")}`];
}

/** A service that is kept running. */
export class Child {
  readonly spec: ChildSpec;
  readonly #parts: ChildParts;
  readonly #ready = Promise.withResolvers<Record<string, unknown>>();
  readonly #failed = Promise.withResolvers<never>();
  #process: Deno.ChildProcess | undefined;
  /** Its next run, begun while the kernel still takes the last one down. */
  #next: Deno.ChildProcess | undefined;
  /** How the log names it. A standby that was never up is called one: the other process of its name does the work. */
  #subject: string;
  /** Whether the fabric runs, with it or without: it is started again from then on, whatever it dies of. */
  #started: boolean;
  /** When this run of it was up. */
  #readyAt: number | undefined;
  readonly #stopped = Promise.withResolvers<void>();
  #stopping = false;
  readonly #backOff = new BackOff();
  #lastLine = "";
  /** What this run of it said before it was up. */
  readonly #early: string[] = [];
  /** Lines that wait for tell(); undefined once it was called. */
  #untold: string[] | undefined = [];
  readonly #done: Promise<void>;

  /** `isStandby`: it comes to a fabric that runs. Such a one is started again even if it was never up. */
  constructor(spec: ChildSpec, parts: ChildParts, isStandby = false) {
    this.spec = spec;
    this.#parts = parts;
    this.#started = isStandby;
    this.#subject = isStandby ? `the process that is to stand by for ${spec.name}` : spec.name;
    this.#failed.promise.catch(() => {});
    this.#ready.promise.catch(() => {});
    this.#done = this.#keep().catch((error) => {
      this.#ready.reject(error);
      this.#failed.reject(error);
    }).finally(() => this.#dropNext());
  }

  /** What the service says about itself, once it is up. Rejects with its own words if it cannot start. */
  get ready(): Promise<Record<string, unknown>> {
    return this.#ready.promise;
  }

  /** Rejects when the service has died and there is no sense in starting it again. */
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
    for (const line of this.#untold ?? []) this.#parts.print(line);
    this.#untold = undefined;
  }

  #say(line: string): void {
    if (this.#untold === undefined) this.#parts.print(line);
    else this.#untold.push(line);
  }

  async #keep(): Promise<void> {
    const { name } = this.spec;
    while (!this.#stopping) {
      const isEarly = this.#next !== undefined;
      const { how, readyMs, mayBeAll } = await this.#runOnce();
      // It may have come before the kernel had taken down what the last one had: its port, its sockets.
      if (isEarly && readyMs === 0 && !this.#stopping) continue;
      // A signal to the whole group may have reached the child before its supervisor.
      if (this.#started && mayBeAll) await this.#pause(SETTLE_MS);
      if (this.#stopping) return;
      if (!this.#started) {
        this.#ready.reject(new Error(this.#lastLine || `${name} ${how}`));
        return;
      }
      const pauseMs = this.#backOff.next(readyMs);
      // What it said of its end is in this line if nobody has seen it yet.
      const why = readyMs === 0 && this.#lastLine !== "" ? `: ${this.#lastLine}` : "";
      log(
        "warn",
        "up",
        `${this.#subject} ${how}${why}; starting it again ${pauseMs === 0 ? "now" : `in ${pauseMs / 1000} s`}`,
      );
      await this.#pause(pauseMs);
      const reason = this.#stopping ? undefined : this.#parts.hopeless();
      if (reason !== undefined) return this.#failed.reject(new Error(`cannot start ${name} again: ${reason}`));
    }
  }

  /** Waits; not any longer when the service is to stop. */
  async #pause(ms: number): Promise<void> {
    let timer;
    await Promise.race([this.#stopped.promise, new Promise((resolve) => timer = setTimeout(resolve, ms))]);
    clearTimeout(timer);
  }

  #spawn(): Deno.ChildProcess {
    const { name, script, permissions, v8Flags, args, env } = this.spec;
    // Nobody inherits the operator's token.
    const { RINGFABRIC_TOKEN: _token, RINGFABRIC_NEW_FABRIC: _new, ...inherited } = Deno.env.toObject();
    return new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--no-prompt", ...v8Arguments(v8Flags), ...permissions, script, ...args],
      // The service ends when this pipe does: also if this process is killed.
      stdin: "piped",
      clearEnv: true,
      env: {
        ...inherited,
        ...telemetryOf(name, inherited),
        RINGFABRIC_SUPERVISED: "1",
        RINGFABRIC_RESTARTED_BY: "up",
        // A whole new fabric: no guest of an earlier run is left. A child that is started again is in the same fabric.
        ...(this.#started ? {} : { RINGFABRIC_NEW_FABRIC: "1" }),
        ...env,
      },
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  }

  /** Its threads are dead: the next run starts now, if it is to start at once. The rest is seen to when this one has ended. */
  #startNext(): void {
    const isAtOnce = this.#readyAt !== undefined && this.#backOff.isAtOnce(performance.now() - this.#readyAt);
    if (!isAtOnce || this.#stopping || this.#parts.hopeless() !== undefined) return;
    try {
      this.#next = this.#spawn();
    } catch {
      // It is tried again when this one has ended, and said then.
    }
  }

  async #dropNext(): Promise<void> {
    const next = this.#next;
    if (!next) return;
    this.#next = undefined;
    kill(next);
    await Promise.all([next.status, next.stdout.cancel(), next.stderr.cancel(), next.stdin.close().catch(() => {})]);
  }

  async #runOnce(): Promise<End> {
    this.#readyAt = undefined;
    this.#lastLine = "";
    this.#early.length = 0;
    const startedAt = performance.now();
    try {
      this.#process = this.#next ?? this.#spawn();
      this.#next = undefined;
    } catch (error) {
      return { how: `cannot be started (${oneLine(error)})`, readyMs: 0, mayBeAll: false };
    }
    const reading = [this.#readOutput(this.#process), this.#readErrors(this.#process.stderr)];
    const { code, signal } = await this.#process.status;
    const endedAt = performance.now();
    await Promise.all(reading);
    // Deno closes the other pipes at their ends. This one stays open until it is closed, or until a write fails.
    await this.#process.stdin.close().catch(() => {});
    const how = signal === null ? `ended with code ${code}` : `was killed by ${signal}`;
    const seconds = ((endedAt - startedAt) / 1000).toFixed(1);
    // One that was told to end by a signal may say so by its code.
    const mayBeAll = signal === null || GROUP_SIGNALS.includes(signal);
    if (this.#readyAt === undefined) return { how: `${how} before it was ready`, readyMs: 0, mayBeAll };
    return { how: `${how} after ${seconds} s`, readyMs: Math.max(1, endedAt - this.#readyAt), mayBeAll };
  }

  async #readOutput({ pid, stdout }: Deno.ChildProcess): Promise<void> {
    for await (const line of lines(stdout)) {
      if (!line.startsWith(READY_PREFIX)) {
        this.#say(line);
        continue;
      }
      this.#readyAt = performance.now();
      const { attempts } = this.#backOff;
      if (attempts > 0) {
        log("info", "up", `${this.#subject} is up again${attempts > 1 ? ` at attempt ${attempts}` : ""}`);
      }
      this.#started = true;
      this.#subject = this.spec.name;
      for (const early of this.#early.splice(0)) this.#say(early);
      const info = JSON.parse(line.slice(READY_PREFIX.length)) as Record<string, unknown> & { life?: LifePlace };
      // Where its life cannot be watched, its end is seen when the kernel has taken it down.
      if (info.life) void whenProcessDead(pid, info.life).then(() => this.#startNext(), () => {});
      this.#ready.resolve(info);
    }
  }

  async #readErrors(stream: ReadableStream<Uint8Array>): Promise<void> {
    for await (const line of lines(stream)) {
      if (line.trim() === "") continue;
      // What Deno says of its own end is more than a line, and the first one is the reason.
      if (line.startsWith(`${this.spec.name}:`) || /^error: /.test(line) || this.#lastLine === "") {
        this.#lastLine = line.replace(/^error: /, `${this.spec.name}: `);
      }
      // Before it is up it may be about to say why it cannot be: that is for `up` to say, in one line.
      if (this.#readyAt !== undefined) this.#say(line);
      else this.#early.push(line);
    }
  }

  /** Tells the service that all of them are to end: a signal to it is the same word. It ends when its turn comes. */
  async tellEnd(): Promise<void> {
    this.#stopping = true;
    this.#stopped.resolve();
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
    if (this.#process) kill(this.#process);
  }
}

function kill(process: Deno.ChildProcess): void {
  try {
    process.kill("SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
