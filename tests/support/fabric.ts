/** A real fabric for a test: `up` with a run directory and ports of its own. */
import { pfClient, type VfPatch } from "../../shared/api/mod.ts";
import { EventLog } from "./event_log.ts";
import { childrenOf, TestProcess } from "./process.ts";
import { authorized } from "./token.ts";

const ROOT = new URL("../../", import.meta.url);

/** What `up --json` prints. */
interface UpInfo {
  api: string;
  vfs: { id: number; mac: string; socket: string }[];
  guests: { api: string; ip: string; port: string }[];
}

/** Ports of a fabric, with room for guests, that nobody uses now. */
export function freePorts(): number {
  for (let tries = 0; tries < 100; tries++) {
    // Below the ports that the kernel gives to whoever connects.
    const base = 20_000 + Math.floor(Math.random() * 600) * 20;
    try {
      const listeners = Array.from({ length: 20 }, (_, i) => i).map((i) =>
        Deno.listen({ hostname: "127.0.0.1", port: base + i })
      );
      for (const listener of listeners) listener.close();
      return base;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
  throw new Error("no free ports for a fabric");
}

/** A running fabric. */
export class TestFabric implements AsyncDisposable {
  readonly process: TestProcess;
  readonly info: UpInfo;
  readonly runDir: string;
  readonly port: number;

  private constructor(process: TestProcess, info: UpInfo, runDir: string, port: number) {
    this.process = process;
    this.info = info;
    this.runDir = runDir;
    this.port = port;
  }

  /** Starts one and waits until it is ready; `root` is the checkout that it is started from, `env` adds to its environment. With
   * `--standby` among the arguments, second processes of the NIC and of vhost stand by. */
  static async start(
    vfs: number,
    args: string[] = [],
    runDir = Deno.makeTempDirSync({ prefix: "ringfabric-" }),
    root: string | URL = ROOT,
    env: Record<string, string> = {},
  ) {
    const port = freePorts();
    const process = new TestProcess("up", Deno.execPath(), [
      "run",
      "--quiet",
      "-A",
      "services/up/main.ts",
      "--json",
      ...["--vfs", String(vfs), "--port", String(port), "--run-dir", runDir],
      // Processes that stand by are a matter of their own tests.
      ...(args.includes("--standby") ? [] : ["--no-standby"]),
      ...args.filter((arg) => arg !== "--standby"),
    ], { cwd: root, env });
    try {
      const [line] = await process.expect(/^\{.*\}$/m, 60_000);
      return new TestFabric(process, JSON.parse(line) as UpInfo, runDir, port);
    } catch (error) {
      await process.end("SIGKILL");
      throw error;
    }
  }

  get client() {
    return pfClient(this.info.api);
  }

  vf(id: number): UpInfo["vfs"][number] {
    const vf = this.info.vfs[id];
    if (!vf) throw new Error(`the test fabric has no vf ${id}`);
    return vf;
  }

  /** URL of a service's own API. */
  url(service: "pf" | "vhost" | "vf" | "nic"): string {
    return `http://127.0.0.1:${this.port + { pf: 0, vhost: 1, vf: 2, nic: 3 }[service]}`;
  }

  async patch(id: number, patch: Partial<VfPatch>): Promise<void> {
    const response = await authorized(`${this.info.api}/api/v1/vfs/${id}`, {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(patch),
    });
    const body = await response.text();
    if (!response.ok) throw new Error(`PATCH of vf ${id}: ${body}`);
  }

  // deno-lint-ignore no-explicit-any
  async get(path: string): Promise<any> {
    const response = await authorized(this.info.api + path);
    return await response.json();
  }

  async counters(id: number): Promise<Record<string, number>> {
    const stats = await this.get(`/api/v1/vfs/${id}/stats`);
    if (!stats.counters) throw new Error(`no counters of vf ${id}: ${JSON.stringify(stats)}`);
    return stats.counters;
  }

  /** What the PF tells from now on. */
  events(): Promise<EventLog> {
    return EventLog.start(this.info.api);
  }

  /** Its services and guests: a line of pid and command each. */
  #children(): string {
    return childrenOf(this.process.pid).map((pid) => {
      try {
        return `${pid} ${Deno.readTextFileSync(`/proc/${pid}/cmdline`).replaceAll("\0", " ")}`;
      } catch {
        return "";
      }
    }).join("\n");
  }

  /** Pid of the built-in guest `index`, while there is one. */
  guestPid(index: number): number | undefined {
    const port = this.info.guests[index]?.api.split(":").at(-1);
    const line = this.#children().split("\n").find((line) =>
      line.includes("guest/main.ts") && line.includes(`:${port} `)
    );
    const pid = Number(line?.split(" ")[0]);
    return Number.isInteger(pid) ? pid : undefined;
  }

  /** Pids of the services, by name. */
  pids(): Record<string, number> {
    const text = this.#children();
    const found = [...text.matchAll(/^(\d+) .*services\/(\w+)\/main\.ts/gm)];
    return Object.fromEntries(found.map(([, pid, name]) => [name, Number(pid)]));
  }

  /** Pid of a service that runs. */
  pid(name: string): number {
    const pid = this.pids()[name];
    if (pid === undefined) throw new Error(`${name} does not run`);
    return pid;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.process.end("SIGINT");
    await Deno.remove(this.runDir, { recursive: true }).catch(() => {});
  }
}
