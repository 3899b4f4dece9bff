/**
 * An unmodified Linux as a guest without a virtual machine: User-Mode Linux, a process whose kernel speaks vhost-user
 * (virtio_uml) and has an interface of the host's file system as its root. It boots in two seconds.
 */
import { fromFileUrl } from "@std/path";
import { childrenOf, TestProcess } from "./process.ts";
import { until, within } from "./wait.ts";

const INIT = fromFileUrl(new URL("uml_init.sh", import.meta.url));
/** What the init puts before its own words. */
const MARK = "\u001e";
const BOOT_DEADLINE_MS = 90_000;
/** Longer lines get stuck in the guest's terminal. */
const LINE_BYTES_MAX = 3900;

/** How a guest is booted. */
export interface UmlOptions {
  memory?: string;
  /** Kernel modules beside virtio_net, such as 8021q. */
  modules?: string[];
}

/** A TAP, for a guest that has no VF. */
export interface TapDevice {
  /** The network namespace that it is in, if that is not the test's own. */
  namespace?: string;
  tap: string;
  mac: string;
}

/** What a command in the guest did. */
export interface UmlResult {
  code: number;
  output: string;
}

let booted = 0;

/** A running guest. Commands are run one after the other. */
export class UmlGuest implements AsyncDisposable {
  readonly #process: TestProcess;
  readonly #dir: string;
  #last: Promise<unknown> = Promise.resolve();

  private constructor(process: TestProcess, dir: string) {
    this.#process = process;
    this.#dir = dir;
  }

  /** Boots a guest whose eth0 is served at the vhost-user socket `socket`, which must be there. */
  static boot(socket: string, options: UmlOptions = {}): Promise<UmlGuest> {
    return UmlGuest.#boot(socket, `virtio_uml.device=${socket}:1`, [], options);
  }

  /** Boots a guest whose eth0 is User-Mode Linux's own driver on a TAP, with its offloads. */
  static bootOnTap({ namespace, tap, mac }: TapDevice, options: UmlOptions = {}): Promise<UmlGuest> {
    const device = `vec0:transport=tap,ifname=${tap},depth=128,gro=1,mac=${mac}`;
    return UmlGuest.#boot(tap, device, namespace === undefined ? [] : ["ip", "netns", "exec", namespace], options);
  }

  static async #boot(
    where: string,
    device: string,
    prefix: readonly string[],
    { memory = "96M", modules = [] }: UmlOptions,
  ): Promise<UmlGuest> {
    const dir = await Deno.makeTempDir({ prefix: "ringfabric-uml-" });
    // In a process namespace of its own, whose first process takes all of the guest's with it when it is killed.
    const [program = "", ...args] = [
      ...[...prefix, "unshare", "--pid", "--fork", "--kill-child=KILL", "--", "setarch", "-R", "linux.uml"],
      ...[`mem=${memory}`, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", `init=${INIT}`],
      ...[`uml_dir=${dir}`, "umid=guest", device],
      ...["con=null", "con0=null", "con1=fd:0,fd:1", "ssl=null", "stderr=1", "panic=1", "loglevel=5"],
      `MODULES=${modules.join(",")}`,
    ];
    const env = { TMPDIR: "/dev/shm", HOME: dir };
    const process = new TestProcess(`UML guest ${booted++} on ${where}`, program, args, { env });
    const guest = new UmlGuest(process, dir);
    try {
      await process.expect(new RegExp(`${MARK}READY\n`), BOOT_DEADLINE_MS);
      return guest;
    } catch (error) {
      await guest[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Runs a shell command in the guest. */
  run(command: string, deadlineMs = 30_000): Promise<UmlResult> {
    if (command.length > LINE_BYTES_MAX || command.includes("\n")) {
      throw new Error(`Cannot run ${command}: one short line`);
    }
    const done = this.#last.then(async () => {
      const from = this.#process.output.length;
      await this.#process.write(`${command}\n`);
      const match = await this.#process.expect(new RegExp(`([^]*?)${MARK}END (\\d+)\n`), deadlineMs, from);
      return { output: match[1] ?? "", code: Number(match[2]) };
    });
    this.#last = done.catch(() => {});
    return done;
  }

  /** Runs a command that must succeed; answers its output. */
  async check(command: string, deadlineMs?: number): Promise<string> {
    const { code, output } = await this.run(command, deadlineMs);
    if (code !== 0) {
      throw new Error(`in the guest: ${command}: ${code}: ${output}\n${this.#process.errors.slice(-1500)}`);
    }
    return output;
  }

  /** Gives eth0 an address and brings it up. */
  async address(cidr: string): Promise<void> {
    await this.check(`ip addr add ${cidr} dev eth0 && ip link set eth0 up`);
  }

  /** Whether an address answers a ping. */
  async reaches(address: string): Promise<boolean> {
    return (await this.run(`ping -c 1 -W 1 ${address}`)).code === 0;
  }

  /** Waits until an address answers. */
  async untilReaches(address: string): Promise<void> {
    await until(`an answer of ${address}`, () => this.reaches(address), 20_000);
  }

  /** Waits until its kernel has said something. */
  async untilLogged(text: string): Promise<void> {
    await until(`the guest's kernel to say ${text}`, async () => (await this.check("dmesg")).includes(text));
  }

  /** Ends it as a power failure does. */
  async kill(): Promise<void> {
    for (const child of childrenOf(this.#process.pid)) Deno.kill(child, "SIGKILL");
    await within("the guest's processes to end", this.#process.child.status, 10_000);
    await this.#process.end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#process.exited) await this.#process.write("halt\n").catch(() => {});
    await within("the guest to power off", this.#process.child.status, 3000).catch(() => this.kill());
    await this.#process.end();
    await Deno.remove(this.#dir, { recursive: true }).catch(() => {});
  }
}
