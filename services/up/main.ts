/**
 * `deno task up`: the whole fabric on one machine. Builds the Wasm, starts the services as child processes with the
 * permissions each needs, prints how to attach, keeps them running, and takes everything down again on Ctrl-C.
 */
import { Command, InvalidArgumentError } from "commander";
import { dirname, resolve } from "@std/path";
import { log, oneLine, pfClient, qemuArguments, type Vf } from "../../shared/api/mod.ts";
import { buildWasm } from "../../shared/wasm/build.ts";
import { Child } from "./child.ts";

const READY_DEADLINE_MS = 20_000;
const POLL_MS = 20;

function defaultRunDir(): string {
  const runtime = Deno.env.get("XDG_RUNTIME_DIR");
  return runtime ? `${runtime}/ringfabric` : `/tmp/ringfabric-${Deno.uid() ?? "user"}`;
}

function inRange(min: number, max: number): (text: string) => number {
  return (text) => {
    const n = Number(text);
    if (!/^\d+$/.test(text) || n < min || n > max) {
      throw new InvalidArgumentError(`It is a number from ${min} to ${max}.`);
    }
    return n;
  };
}

interface Options {
  vfs?: number;
  port: number;
  host: string;
  runDir: string;
  engineCpus?: string;
  spinUs?: string;
  vfMemoryMib?: string;
  sealedOnly: boolean;
  json: boolean;
}

/** Makes the run directory and holds its lock until the process ends. */
function claimRunDir(runDir: string): Deno.FsFile {
  try {
    Deno.mkdirSync(runDir, { recursive: true, mode: 0o700 });
    const { uid } = Deno.statSync(runDir);
    if (uid !== Deno.uid()) throw new Error(`it belongs to user ${uid}`);
    const lock = Deno.openSync(`${runDir}/up.lock`, { create: true, write: true, mode: 0o600 });
    if (lock.tryLockSync(true)) return lock;
  } catch (error) {
    throw new Error(`Cannot use run directory ${runDir}: ${oneLine(error)}; choose another one with --run-dir`);
  }
  throw new Error(`Cannot use run directory ${runDir}: another fabric runs there; choose another one with --run-dir`);
}

/** What addresses of a new fabric are derived from: the same on the same machine for the same run directory. */
function macSeed(runDir: string): string {
  try {
    return `${Deno.readTextFileSync("/etc/machine-id").trim()} ${runDir}`;
  } catch {
    return crypto.randomUUID();
  }
}

function services(options: Options): Child[] {
  const { host, port, runDir } = options;
  const root = resolve(dirname(new URL(import.meta.url).pathname), "../..");
  const address = (offset: number) => `${host.includes(":") ? `[${host}]` : host}:${port + offset}`;
  const connect = host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "[::1]" : address(0).replace(/:\d+$/, "");
  const files = [`--allow-read=${root},${runDir}`, `--allow-write=${runDir}`, "--allow-env"];
  const optional = (flag: string, value: string | undefined) => value === undefined ? [] : [flag, value];
  return [
    new Child({
      name: "nic",
      script: "services/nic/main.ts",
      permissions: [...files, "--allow-ffi", `--allow-net=${address(3)}`],
      args: [
        "--listen",
        address(3),
        "--socket",
        `${runDir}/nic.sock`,
        ...optional("--engine-cpus", options.engineCpus),
        ...optional("--spin-us", options.spinUs),
        ...optional("--vf-memory-mib", options.vfMemoryMib),
        ...(options.sealedOnly ? ["--sealed-only"] : []),
      ],
    }),
    new Child({
      name: "pf",
      script: "services/pf/main.ts",
      permissions: [...files, `--allow-net=${address(0)},${connect}:${port + 3}`],
      args: [
        "--listen",
        address(0),
        "--nic",
        `http://${connect}:${port + 3}`,
        "--db",
        `${runDir}/pf.sqlite`,
        "--run-dir",
        runDir,
        "--mac-seed",
        macSeed(runDir),
        ...optional("--vfs", options.vfs?.toString()),
      ],
    }),
    new Child({
      name: "vhost",
      script: "services/vhost/main.ts",
      permissions: [...files, "--allow-ffi", `--allow-net=${address(1)}`],
      args: ["--listen", address(1), "--nic-socket", `${runDir}/nic.sock`, "--run-dir", runDir],
    }),
  ];
}

/** Waits until the PF has programmed the NIC and every VF has its socket. */
async function awaitFabric(api: string, vhost: string, wanted: number | undefined): Promise<Vf[]> {
  const client = pfClient(api);
  const deadline = Date.now() + READY_DEADLINE_MS;
  for (;;) {
    try {
      const ready = await Promise.all([`${api}/readyz`, `${vhost}/readyz`].map(async (url) => {
        const response = await fetch(url);
        await response.body?.cancel();
        return response.ok;
      }));
      if (ready[0]) {
        const nic = await (await client.api.v1.nic.$get()).json();
        if (wanted !== undefined && nic.numVfs !== wanted) {
          const response = await client.api.v1.nic.$patch({ json: { numVfs: wanted } });
          if (!response.ok) throw new Error(((await response.json()) as { detail: string }).detail);
        }
      }
      if (ready.every((ok) => ok) || (ready[0] && wanted === 0)) {
        const vfs = await (await client.api.v1.vfs.$get()).json();
        if (vfs.every((vf) => exists(vf.socket))) return vfs as Vf[];
      }
    } catch (error) {
      if (Date.now() > deadline) throw error;
    }
    if (Date.now() > deadline) throw new Error(`the fabric was not ready within ${READY_DEADLINE_MS / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isSocket === true;
  } catch {
    return false;
  }
}

function print(api: string, vfs: Vf[], options: Options, tookMs: number): void {
  if (options.json) {
    const list = vfs.map(({ id, mac, socket }) => ({ id, mac, socket }));
    console.log(JSON.stringify({ api, vfs: list, guests: [] }));
    return;
  }
  console.log(`ringfabric is up (${(tookMs / 1000).toFixed(1)} s)\n`);
  console.log(`  API        ${api}/api/v1/vfs`);
  console.log(`  browse it  ${api}/docs`);
  console.log(`  metrics    ${api}/metrics\n`);
  for (const vf of vfs) {
    console.log(`  VF ${vf.id}  ${vf.mac}  ${vf.socket}`);
    console.log(`    qemu-system-x86_64 ${shellLines(qemuArguments(vf))}\n`);
  }
  console.log("With KVM: deno task fabric qemu N --kvm.  DPDK: deno task fabric testpmd N.  Stop: Ctrl-C.");
}

/** Arguments in lines of a flag and its value each, to be pasted into a shell. */
function shellLines(args: string[]): string {
  const lines: string[] = [];
  for (let i = 0; i < args.length; i += 2) lines.push(args.slice(i, i + 2).join(" "));
  return lines.join(" \\\n      ");
}

/** Where this machine reaches a service that listens on every address. */
function reachable(url: string): string {
  return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
}

async function up(options: Options): Promise<number> {
  const started = performance.now();
  const stop = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, () => stop.resolve());
  // The services get the right to call the C library from here: without it there is nothing to hand on.
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
    throw new Error("Cannot start the NIC: FFI is not permitted; start up with --allow-ffi (or deno task up)");
  }
  options.runDir = resolve(options.runDir);
  if (options.port > 65535 - 3) {
    throw new Error(`Cannot use port ${options.port}: the services need four ports from there on`);
  }
  using _lock = claimRunDir(options.runDir);
  await buildWasm();
  const children = services(options);
  const stopAll = () => Promise.all(children.map((child) => child.stop()));
  try {
    const running = async () => {
      const infos = await Promise.all(children.map((child) => child.ready));
      const [api, vhost] = [infos[1]?.api, infos[2]?.api].map((url) => reachable(String(url))) as [string, string];
      const vfs = await awaitFabric(api, vhost, options.vfs);
      print(api, vfs, options, performance.now() - started);
      await stop.promise;
    };
    await Promise.race([stop.promise, running(), ...children.map((child) => child.failed)]);
    if (!options.json) log("info", "up", "stopping");
    return 0;
  } finally {
    await stopAll();
    cleanUp(options.runDir);
  }
}

/** Removes what a killed service may have left: its sockets and the lock. Settings stay, and so do others' files. */
function cleanUp(runDir: string): void {
  for (const { name } of Deno.readDirSync(runDir)) {
    const path = `${runDir}/${name}`;
    if (name === "up.lock" || (/^(nic|uplink|vf\d+)\.sock$/.test(name) && exists(path))) Deno.removeSync(path);
  }
}

const command = new Command("up")
  .description("Starts the fabric: nic, pf and vhost, until Ctrl-C")
  .option("--vfs <n>", "number of VFs (kept; 4 at first)", inRange(0, 256))
  .option("--port <p>", "port of the PF's API; the other services take the next three", inRange(1, 65535), 8080)
  .option("--host <address>", "address to listen on; other than loopback needs RINGFABRIC_TOKEN", "127.0.0.1")
  .option("--run-dir <dir>", "sockets and settings", defaultRunDir())
  .option("--engine-cpus <list>", "CPUs of the engine, such as 2 or 2-3")
  .option("--spin-us <n>", "how long the engine polls without work before it sleeps")
  .option("--vf-memory-mib <n>", "how much memory one guest may map")
  .option("--sealed-only", "refuse guests whose memory could be truncated", false)
  .option("--json", "one line of JSON when ready, for programs", false)
  .parse();

try {
  Deno.exit(await up(command.opts<Options>()));
} catch (error) {
  console.error(`up: ${oneLine(error).replace(/^up: /, "")}`);
  Deno.exit(1);
}
