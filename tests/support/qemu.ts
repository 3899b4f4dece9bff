/**
 * Real guests: QEMU with an unmodified Debian kernel and an initrd of busybox and the virtio modules. The guest's init
 * reads commands from its serial console and answers each with its output and exit code.
 */
import { qemuArguments } from "../../shared/api/mod.ts";
import { TestProcess } from "./process.ts";
import { run } from "./judges.ts";
import { QemuMonitor } from "./qmp.ts";
import { until } from "./wait.ts";
import { udpEchoProgram } from "./udp_echo.ts";

const MODULES = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci",
  "drivers/virtio/virtio_mmio",
  "net/core/failover",
  "drivers/net/net_failover",
  "drivers/net/virtio_net",
];

const INIT = `#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox --install -s /bin
export PATH=/bin
for m in ${MODULES.map((path) => path.split("/").at(-1)).join(" ")}; do
  # QEMU's microvm names its devices on the kernel's command line.
  insmod /modules/$m.ko $(tr ' ' '\\n' </proc/cmdline | sed -n "s/^$m\\.//p")
done
dmesg -n 1
stty -echo
ip link set lo up
echo GUEST-READY
while read -r id command; do
  eval "$command" >/tmp/out.$id 2>&1
  code=$?
  echo "BEGIN-$id"
  cat /tmp/out.$id
  echo "END-$id $code"
  rm -f /tmp/out.$id
done
`;

function kernelVersion(): string {
  for (const entry of Deno.readDirSync("/boot")) {
    const match = /^vmlinuz-(.*cloud-amd64)$/.exec(entry.name);
    if (match?.[1]) return match[1];
  }
  throw new Error("no kernel of linux-image-cloud-amd64 in /boot");
}

let image: Promise<{ kernel: string; initrd: string }> | undefined;

/** Kernel and initrd for guests, made once a test process. */
function guestImage(): Promise<{ kernel: string; initrd: string }> {
  image ??= build();
  return image;
}

async function build(): Promise<{ kernel: string; initrd: string }> {
  const version = kernelVersion();
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-initrd-" });
  try {
    await Deno.mkdir(`${dir}/tree/bin`, { recursive: true });
    await Deno.mkdir(`${dir}/tree/modules`);
    await Deno.copyFile("/bin/busybox", `${dir}/tree/bin/busybox`);
    for (const path of MODULES) {
      const from = `/lib/modules/${version}/kernel/${path}.ko`;
      await Deno.copyFile(from, `${dir}/tree/modules/${path.split("/").at(-1)}.ko`);
    }
    await Deno.writeTextFile(`${dir}/tree/init`, INIT, { mode: 0o755 });
    await Deno.writeFile(`${dir}/tree/bin/udp-echo`, udpEchoProgram(), { mode: 0o755 });
    const initrd = await Deno.makeTempFile({ prefix: "ringfabric-initrd-", suffix: ".cpio.gz" });
    await run("sh", ["-c", `cd "$0" && find . | cpio -o -H newc --quiet | gzip -1 > "$1"`, `${dir}/tree`, initrd]);
    globalThis.addEventListener("unload", () => Deno.removeSync(initrd));
    return { kernel: `/boot/vmlinuz-${version}`, initrd };
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

const BOOT_MS = 90_000;
const MIGRATE_MS = 120_000;
/** How much of a guest's memory is sent in a second, while it runs and while it does not. */
const SLOW_BYTES = 10;
const QUICK_BYTES = 4 * 1024 ** 3;
/** Without KVM a microvm has no clock by which Linux can tell its own speed: three boots of four would stand still. */
const MICROVM_KERNEL = "tsc_early_khz=2000000";

/** The VF that a guest gets. */
type BootTarget = { id: number; mac: string; socket: string };

/** How a guest is started. */
export interface BootOptions {
  /** What kind of machine; microvm has its devices by virtio-mmio. */
  machine?: "pc" | "q35" | "microvm";
  memory?: string;
  queuePairs?: number;
  /** More properties of its network device, such as `packed=on`. */
  device?: string;
  /** Path of a Unix socket for its monitor. */
  monitor?: string;
  /** The file that is its memory; else it has one of its own. A guest that moves running finds it in the same file. */
  ram?: string;
  /** More arguments of QEMU. */
  extra?: string[];
}

/** The arguments for a pc as those for another machine, with more properties of the network device. */
function hardwareArguments(args: readonly string[], { machine = "pc", device, ram }: BootOptions): string[] {
  const isMicrovm = machine === "microvm";
  const own = args.map((argument) => {
    if (ram !== undefined && argument.startsWith("memory-backend-memfd,")) {
      return `${argument.replace("-memfd,", "-file,")},mem-path=${ram}`;
    }
    if (!argument.startsWith("virtio-net-pci,")) return argument;
    const [, netdev, mac] = argument.split(",");
    const kind = isMicrovm ? `virtio-net-device,${netdev},${mac}` : argument;
    return device === undefined ? kind : `${kind},${device}`;
  });
  if (!isMicrovm) return [...own, "-machine", machine];
  // It knows no NUMA: its memory is named by the machine.
  const numa = own.indexOf("-numa");
  return [...own.toSpliced(numa, 2), "-machine", "microvm,isa-serial=on,rtc=on,memory-backend=mem"];
}

/** Starts a machine. */
async function start(vf: BootTarget, options: BootOptions): Promise<TestProcess> {
  const { kernel, initrd } = await guestImage();
  const { monitor, machine, memory = "256M", queuePairs = 1 } = options;
  const hardware = hardwareArguments(qemuArguments(vf, { memory, queuePairs }), options);
  return new TestProcess(`qemu on vf ${vf.id}`, "qemu-system-x86_64", [
    ...hardware,
    ...["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio"],
    ...[
      "-kernel",
      kernel,
      "-initrd",
      initrd,
      "-append",
      `console=ttyS0 quiet panic=-1 ${machine === "microvm" ? MICROVM_KERNEL : ""}`,
    ],
    ...(monitor === undefined ? [] : ["-qmp", `unix:${monitor},server=on,wait=off`]),
    ...(options.extra ?? []),
  ]);
}

/** A running QEMU guest. */
export class QemuGuest implements AsyncDisposable {
  readonly process: TestProcess;
  #monitor: QemuMonitor | undefined;
  #next = 1;

  private constructor(process: TestProcess) {
    this.process = process;
  }

  /** Boots a guest on a VF and waits for its shell. */
  static async boot(vf: BootTarget, options: BootOptions = {}): Promise<QemuGuest> {
    const guest = new QemuGuest(await start(vf, options));
    try {
      await guest.process.expect(/GUEST-READY/, BOOT_MS);
      if (options.monitor !== undefined) guest.#monitor = await QemuMonitor.connect(options.monitor);
    } catch (error) {
      await guest.process.end("SIGKILL");
      throw error;
    }
    return guest;
  }

  /** A machine on a VF into which a guest is to be moved: it waits for it at `from`. Its MAC is the guest's. */
  static async incoming(vf: BootTarget, from: string, options: BootOptions & { monitor: string }): Promise<QemuGuest> {
    const guest = new QemuGuest(await start(vf, { ...options, extra: [...options.extra ?? [], "-incoming", from] }));
    try {
      guest.#monitor = await until(
        "the monitor of the machine that waits",
        () => QemuMonitor.connect(options.monitor).catch(() => undefined),
      );
    } catch (error) {
      await guest.process.end("SIGKILL");
      throw error;
    }
    return guest;
  }

  /**
   * Moves the guest to `next`, which waits for it at `to`. The migration begins while the guest runs; `meanwhile` ends that.
   * Its memory is sent when it stands still: without KVM, QEMU 7.2 loses writes of a guest that runs, whatever its devices.
   * Answers what QEMU says for how long it stood still, in ms.
   */
  async move(to: string, next: QemuGuest, meanwhile: () => Promise<void>): Promise<number> {
    const limit = (bytes: number) => this.monitor.execute("migrate-set-parameters", { "max-bandwidth": bytes });
    await limit(SLOW_BYTES);
    await this.monitor.execute("migrate", { uri: to });
    await meanwhile();
    await this.monitor.execute("stop");
    await limit(QUICK_BYTES);
    const downtimeMs = await this.#moved();
    await next.monitor.execute("cont");
    return downtimeMs;
  }

  /**
   * Moves the guest to `next`, which waits for it at `to`, while it runs. Both have its memory in one file, so QEMU copies
   * none of it: without KVM, QEMU 7.2 loses writes of a guest that runs. All else is as always: the dirty log, the rings'
   * positions, the devices. Answers what QEMU says for how long the guest stood still, in ms.
   */
  async moveRunning(to: string, next: QemuGuest): Promise<number> {
    const capabilities = [{ capability: "x-ignore-shared", state: true }];
    for (const { monitor } of [next, this]) await monitor.execute("migrate-set-capabilities", { capabilities });
    await this.monitor.execute("migrate", { uri: to });
    return await this.#moved();
  }

  async #moved(): Promise<number> {
    return await until("the guest to be moved", async () => {
      const { status, downtime } = await this.monitor.execute("query-migrate") as { status: string; downtime?: number };
      if (status === "failed") throw new Error(`QEMU could not move its guest:\n${this.process.output.slice(-1000)}`);
      return status === "completed" && downtime !== undefined ? [downtime] : undefined;
    }, MIGRATE_MS).then((downtimes) => downtimes[0] ?? 0);
  }

  /** Runs a command in the guest; answers its output and exit code. */
  async run(command: string, deadlineMs = 60_000): Promise<{ output: string; code: number }> {
    const id = this.#next++;
    const from = this.process.output.length;
    await this.process.write(`${id} ${command}\n`);
    const match = await this.process.expect(new RegExp(`BEGIN-${id}\\r?\\n([^]*?)END-${id} (\\d+)`), deadlineMs, from);
    return { output: (match[1] ?? "").replaceAll("\r", ""), code: Number(match[2]) };
  }

  /** As `run`; throws if the command fails. */
  async check(command: string, deadlineMs?: number): Promise<string> {
    const { output, code } = await this.run(command, deadlineMs);
    if (code !== 0) throw new Error(`in the guest, ${command} failed with ${code}:\n${output}`);
    return output;
  }

  /** The monitor, if the guest was booted with one. */
  get monitor(): QemuMonitor {
    if (!this.#monitor) throw new Error(`${this.process.name} was booted without a monitor`);
    return this.#monitor;
  }

  /** Resets the machine and waits for its shell. QEMU needs `-action reboot=reset` for that. */
  async reset(): Promise<void> {
    const from = this.process.output.length;
    await this.monitor.execute("system_reset");
    await this.process.expect(/GUEST-READY/, 90_000, from);
  }

  /** Gives eth0 an address. */
  async address(cidr: string): Promise<void> {
    await this.check(`ip addr add ${cidr} dev eth0 && ip link set eth0 up`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#monitor?.[Symbol.dispose]();
    this.#monitor = undefined;
    await this.process.end("SIGKILL");
  }
}
