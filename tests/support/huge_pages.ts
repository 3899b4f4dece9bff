/** Hugepages for DPDK: lent for as long as tests or benchmarks run, given back afterwards. */

const NR_HUGEPAGES = "/proc/sys/vm/nr_hugepages";
const HUGE_MOUNT = "/dev/hugepages";

async function call(command: string, args: string[]): Promise<void> {
  await new Deno.Command(command, { args, stdin: "null", stdout: "null" }).output();
}

/** Sees to it that there are `pages` of 2 MiB, if this is root; answers what gives them back. */
export async function lendHugePages(pages: number): Promise<() => Promise<void>> {
  if (Deno.uid() !== 0) return () => Promise.resolve();
  const before = Number(Deno.readTextFileSync(NR_HUGEPAGES));
  if (before < pages) Deno.writeTextFileSync(NR_HUGEPAGES, String(pages));
  const mounted = Deno.readTextFileSync("/proc/mounts").includes(` ${HUGE_MOUNT} hugetlbfs`);
  if (!mounted) {
    Deno.mkdirSync(HUGE_MOUNT, { recursive: true });
    await call("mount", ["-t", "hugetlbfs", "none", HUGE_MOUNT]);
  }
  return async () => {
    if (!mounted) await call("umount", [HUGE_MOUNT]);
    Deno.writeTextFileSync(NR_HUGEPAGES, String(before));
  };
}
