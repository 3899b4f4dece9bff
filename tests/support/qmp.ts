/** QEMU's machine protocol (QMP): commands and answers as one JSON object a line, over a Unix socket. */
import { within } from "./wait.ts";

interface Line {
  id?: number;
  event?: string;
  timestamp?: { seconds: number; microseconds: number };
  return?: unknown;
  error?: { desc: string };
}

/** A connection to a QEMU's monitor. */
export class QemuMonitor implements Disposable {
  readonly #socket: Deno.UnixConn;
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";
  #next = 1;
  /** When QEMU told an event last, in ms since 1970. */
  readonly #events = new Map<string, number>();

  private constructor(socket: Deno.UnixConn) {
    this.#socket = socket;
    this.#reader = socket.readable.pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Connects to the socket of `-qmp unix:PATH,server=on,wait=off`. */
  static async connect(path: string): Promise<QemuMonitor> {
    const monitor = new QemuMonitor(await Deno.connect({ transport: "unix", path }));
    // QEMU greets, and takes no command before this one.
    await monitor.#line();
    await monitor.execute("qmp_capabilities");
    return monitor;
  }

  /** Runs a command; answers what QEMU returns when it is done. Throws QEMU's reason if it refuses. */
  async execute(command: string, args: Record<string, unknown> = {}): Promise<unknown> {
    const id = this.#next++;
    const bytes = new TextEncoder().encode(JSON.stringify({ execute: command, arguments: args, id }) + "\n");
    await this.#socket.write(bytes);
    for (;;) {
      const line = await within(`QEMU's answer to ${command}`, this.#line());
      if (line.id !== id) continue;
      if (line.error) throw new Error(`QEMU refused ${command}: ${line.error.desc}`);
      return line.return;
    }
  }

  /** When an event such as RESUME was last told, in ms since 1970, as far as QEMU has answered a command since then. */
  at(event: string): number | undefined {
    return this.#events.get(event);
  }

  async #line(): Promise<Line> {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0) {
        const line = JSON.parse(this.#text.slice(0, end)) as Line;
        this.#text = this.#text.slice(end + 1);
        const { event, timestamp } = line;
        if (event && timestamp) this.#events.set(event, timestamp.seconds * 1000 + timestamp.microseconds / 1000);
        return line;
      }
      const { value, done } = await this.#reader.read();
      if (done) throw new Error("QEMU closed its monitor");
      this.#text += value;
    }
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}
