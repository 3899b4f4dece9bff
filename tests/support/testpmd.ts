/** DPDK's testpmd as a judge: an independent driver and traffic source on one or two VFs. */
import { TestProcess } from "./process.ts";

/** Counters of one testpmd port. */
export interface PortStats {
  rxPackets: number;
  rxMissed: number;
  rxBytes: number;
  rxErrors: number;
  txPackets: number;
  txErrors: number;
  txBytes: number;
}

/** How a testpmd is started. */
export interface TestpmdOptions {
  prefix: string;
  /** virtio-user devices: socket, MAC and further device arguments. */
  ports: { socket: string; mac: string; args?: string }[];
  queueSize?: number;
  queuePairs?: number;
  forward?: string;
  /** Further EAL arguments, and further ones of testpmd itself. */
  eal?: string[];
  extra?: string[];
}

/** A running testpmd at its prompt. */
export class Testpmd implements AsyncDisposable {
  readonly process: TestProcess;

  private constructor(process: TestProcess) {
    this.process = process;
  }

  static async start(options: TestpmdOptions): Promise<Testpmd> {
    const { prefix, ports, queueSize = 256, queuePairs = 1, forward = "io", eal = [], extra = [] } = options;
    const vdevs = ports.flatMap(({ socket, mac, args = "" }, i) => [
      "--vdev",
      `net_virtio_user${i},path=${socket},mac=${mac},queue_size=${queueSize},queues=${queuePairs}${args}`,
    ]);
    const process = new TestProcess(`testpmd ${prefix}`, "stdbuf", [
      ...["-oL", "dpdk-testpmd", "-l", "0,1", "--main-lcore", "0", "-m", "256"],
      ...["--file-prefix", prefix, "--no-pci", "--single-file-segments", "--no-telemetry"],
      ...vdevs,
      ...eal,
      ...["--", "-i", "--nb-cores=1", `--forward-mode=${forward}`, `--rxq=${queuePairs}`, `--txq=${queuePairs}`],
      ...[`--rxd=${queueSize}`, `--txd=${queueSize}`, "--no-flush-rx", "--total-num-mbufs=16384"],
      ...extra,
    ]);
    const testpmd = new Testpmd(process);
    try {
      await process.expect(/testpmd> /, 30_000);
    } catch (error) {
      await process.end("SIGKILL");
      throw error;
    }
    return testpmd;
  }

  /** Types a command and answers what testpmd says until its next prompt. */
  async command(text: string, deadlineMs = 20_000): Promise<string> {
    const from = this.process.output.length;
    await this.process.write(`${text}\n`);
    const match = await this.process.expect(/^[^]*?\n?testpmd> $/, deadlineMs, from);
    return match[0];
  }

  /** Counters of port `port`. */
  async stats(port: number): Promise<PortStats> {
    const text = await this.command(`show port stats ${port}`);
    const read = (name: string) => {
      const match = new RegExp(`${name}:\\s+(\\d+)`).exec(text);
      if (!match) throw new Error(`testpmd shows no ${name}:\n${text}`);
      return Number(match[1]);
    };
    return {
      rxPackets: read("RX-packets"),
      rxMissed: read("RX-missed"),
      rxBytes: read("RX-bytes"),
      rxErrors: read("RX-errors"),
      txPackets: read("TX-packets"),
      txErrors: read("TX-errors"),
      txBytes: read("TX-bytes"),
    };
  }

  /** Quits; kills it if it does not. */
  async quit(): Promise<void> {
    if (!this.process.exited) await this.process.write("quit\n").catch(() => {});
    const timer = setTimeout(() => this.process.kill("SIGKILL"), 10_000);
    await this.process.child.status;
    clearTimeout(timer);
    await this.process.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.quit();
  }
}
