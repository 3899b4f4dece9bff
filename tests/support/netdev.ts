/** `fabric netdev` as somebody at a terminal runs it. */
import type { TestFabric } from "./fabric.ts";
import type { NetNamespace } from "./net_namespace.ts";
import { TestProcess } from "./process.ts";

/** Starts the command. */
export function startNetdev(fabric: TestFabric, ...args: string[]): TestProcess {
  const command = ["run", "-A", "--quiet", "services/cli/main.ts", "--run-dir", fabric.runDir, "netdev", ...args];
  return new TestProcess(`fabric netdev ${args.join(" ")}`, Deno.execPath(), command, { env: { NO_COLOR: "1" } });
}

/** VF `vf` as eth0 of a namespace, with this address. */
export async function attachNetdev(
  fabric: TestFabric,
  vf: number,
  namespace: NetNamespace,
  address: string,
): Promise<TestProcess> {
  const process = startNetdev(fabric, String(vf), "eth0", "--netns", namespace.name, "--address", address);
  await process.expect(/is interface eth0 of network namespace/);
  return process;
}
