/** A program under test or a judge: started, fed, read line by line, ended by pid. */
import { until, within } from "./wait.ts";

function tasksOf(pid: number): string[] {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name }) => name);
  } catch {
    return [];
  }
}

/** Pids of a process's children; none once it has ended. */
export function childrenOf(pid: number): number[] {
  return tasksOf(pid).flatMap((task) => {
    try {
      const text = Deno.readTextFileSync(`/proc/${pid}/task/${task}/children`);
      return text.split(" ").filter((word) => word !== "").map(Number);
    } catch {
      // A thread that has ended meanwhile has none.
      return [];
    }
  });
}

/** A child process whose output is kept. */
export class TestProcess implements AsyncDisposable {
  readonly child: Deno.ChildProcess;
  readonly name: string;
  output = "";
  errors = "";
  exited: Deno.CommandStatus | undefined;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<unknown>;

  constructor(name: string, command: string, args: string[], options: Deno.CommandOptions = {}) {
    this.name = name;
    this.child = new Deno.Command(command, {
      args,
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
      ...options,
    }).spawn();
    this.#writer = this.child.stdin.getWriter();
    this.#writer.closed.catch(() => {});
    this.#reading = Promise.all([
      this.#read(this.child.stdout, (text) => this.output += text),
      this.#read(this.child.stderr, (text) => this.errors += text),
      this.child.status.then((status) => this.exited = status),
    ]);
  }

  async #read(stream: ReadableStream<Uint8Array>, add: (text: string) => void): Promise<void> {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) add(text);
  }

  get pid(): number {
    return this.child.pid;
  }

  /** Everything the process has said. */
  get all(): string {
    return `${this.output}\n${this.errors}`;
  }

  async write(text: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(text));
  }

  /** Ends its standard input. */
  async closeInput(): Promise<void> {
    await this.#writer.close();
  }

  /** Waits until `pattern` appears in the output behind character `from`. */
  async expect(pattern: RegExp, deadlineMs = 20_000, from = 0): Promise<RegExpExecArray> {
    return await until(`${this.name} to say ${pattern}; it said:\n${this.all.slice(-2000)}`, () => {
      const match = pattern.exec(this.output.slice(from));
      if (match) return match;
      if (this.exited) throw new Error(`${this.name} ended before it said ${pattern}:\n${this.all.slice(-3000)}`);
    }, deadlineMs).catch((error) => {
      throw new Error(`${(error as Error).message}\n${this.all.slice(-2000)}`);
    });
  }

  kill(signal: Deno.Signal = "SIGKILL"): void {
    if (!this.exited) this.child.kill(signal);
  }

  /** Ends the process and waits for it. */
  async end(signal: Deno.Signal = "SIGTERM"): Promise<Deno.CommandStatus> {
    this.kill(signal);
    try {
      await within(`${this.name} to end on ${signal}`, this.child.status, 10_000);
    } catch {
      this.kill("SIGKILL");
    }
    await this.#writer.close().catch(() => {});
    await this.#reading;
    return await this.child.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}
