/**
 * The outside programs that judge: whether they are here, and tests that need them. Without root or without a judge a
 * test is skipped and says what would install it; with CI=true a missing judge is a failure.
 */

/** Debian packages of all judges. */
export const JUDGE_PACKAGES = [
  "qemu-system-x86",
  "linux-image-cloud-amd64",
  "busybox-static",
  "chromium",
  "cpio",
  "dpdk",
  "dpdk-dev",
  "docker-compose",
  "docker.io",
  "ethtool",
  "iproute2",
  "iperf3",
  "procps",
  "prometheus",
  "python3",
  "systemd",
  "tshark",
  "user-mode-linux",
  "iputils-ping",
];

const PROGRAMS: Record<string, string> = {
  "qemu": "/usr/bin/qemu-system-x86_64",
  "testpmd": "/usr/bin/dpdk-testpmd",
  "cpio": "/usr/bin/cpio",
  "busybox": "/bin/busybox",
  "tshark": "/usr/bin/tshark",
  "uml": "/usr/bin/linux.uml",
  "iperf3": "/usr/bin/iperf3",
  "ethtool": "/usr/sbin/ethtool",
  "chromium": "/usr/bin/chromium",
  "docker": "/usr/sbin/dockerd",
  "docker-compose": "/usr/bin/docker-compose",
  "systemd": "/usr/bin/systemd-notify",
  "python": "/usr/bin/python3",
  "prometheus": "/usr/bin/prometheus",
};

/** A judge by name. */
export type Judge =
  | "qemu"
  | "testpmd"
  | "tshark"
  | "docker"
  | "uml"
  | "chromium"
  | "systemd"
  | "python"
  | "prometheus"
  | "root";

const NEEDS: Record<Judge, string[]> = {
  qemu: ["qemu", "cpio", "busybox", "kernel"],
  testpmd: ["testpmd", "root, for hugepages"],
  tshark: ["tshark"],
  uml: ["uml", "iperf3", "ethtool", "busybox", "root, for namespaces"],
  chromium: ["chromium"],
  systemd: ["systemd"],
  python: ["python"],
  root: ["root, for other users and namespaces"],
  prometheus: ["prometheus"],
  docker: ["docker", "docker-compose", "root, for namespaces"],
};

function isHere(name: string): boolean {
  if (name.startsWith("root")) return Deno.uid() === 0;
  if (name === "kernel") return [...Deno.readDirSync("/boot")].some((entry) => /^vmlinuz-.*cloud/.test(entry.name));
  try {
    return Deno.statSync(PROGRAMS[name] as string).isFile;
  } catch {
    return false;
  }
}

function missing(judge: Judge): string[] {
  return NEEDS[judge].filter((name) => !isHere(name));
}

/** Runs a program to its end; throws with its words if it fails. */
export async function run(command: string, args: string[]): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, { args }).output();
  const text = new TextDecoder().decode(stdout);
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} failed: ${new TextDecoder().decode(stderr)}${text}`);
  return text;
}

/** A test that needs judges. */
export function judgedTest(judges: Judge[], name: string, fn: (t: Deno.TestContext) => Promise<void>): void {
  const lacking = judges.flatMap(missing);
  const isCi = Deno.env.get("CI") === "true";
  if (lacking.length > 0 && isCi) {
    Deno.test(name, () => {
      throw new Error(`${lacking.join(", ")} missing: apt-get install ${JUDGE_PACKAGES.join(" ")}`);
    });
    return;
  }
  const reason = lacking.length > 0
    ? ` (needs ${lacking.join(", ")}: apt-get install ${JUDGE_PACKAGES.join(" ")})`
    : "";
  Deno.test({ name: name + reason, ignore: lacking.length > 0, fn });
}
