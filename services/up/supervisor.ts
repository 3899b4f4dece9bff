/**
 * A whole fabric on one machine. Builds the Wasm, starts the services as child processes with the permissions each
 * needs, keeps them running until it is told to stop, and takes everything down again.
 */
import { dirname, fromFileUrl, resolve } from "@std/path";
import { log, oneLine, pfClient, type Vf } from "../../shared/api/mod.ts";
import { buildWasm } from "../../shared/wasm/build.ts";
import { PLUGIN_DIR, TRUSTED_KEYS } from "../../shared/wasm/load.ts";
import { Child } from "./child.ts";

const READY_DEADLINE_MS = 20_000;
const POLL_MS = 20;

/** Where sockets and settings are if nobody says. */
export function defaultRunDir(): string {
  const runtime = Deno.env.get("XDG_RUNTIME_DIR");
  return runtime ? `${runtime}/ringfabric` : `/tmp/ringfabric-${Deno.uid() ?? "user"}`;
}

/** How a fabric is started. */
export interface Options {
  vfs?: number;
  guests: number;
  guestArgs?: string;
  trust?: string;
  /** Where guests with shells of their own listen: addresses that the vf service may reach. */
  shells: string[];
  port: number;
  host: string;
  runDir: string;
  engineCpus?: string;
  spinUs?: number;
  vfMemoryMib?: number;
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

/** Where the services are, from outside and from each other. */
class Places {
  readonly root = resolve(dirname(new URL(import.meta.url).pathname), "../..");
  readonly runDir: string;
  readonly trust: string;
  readonly #port: number;
  readonly #host: string;

  constructor({ host, port, runDir, trust }: Options) {
    this.#host = host;
    this.#port = port;
    this.runDir = runDir;
    this.trust = [fromFileUrl(TRUSTED_KEYS), ...(trust ? [resolve(trust)] : [])].join(",");
  }

  /** What a service listens on. */
  listen(offset: number): string {
    return `${this.#host.includes(":") ? `[${this.#host}]` : this.#host}:${this.#port + offset}`;
  }

  /** Where another service finds it. */
  at(offset: number): string {
    const host = this.#host === "0.0.0.0" ? "127.0.0.1" : this.#host === "::" ? "[::1]" : undefined;
    return host ? `${host}:${this.#port + offset}` : this.listen(offset);
  }

  /** What every service may read and write. */
  get files(): string[] {
    return [`--allow-read=${this.root},${this.runDir},${this.trust}`, `--allow-write=${this.runDir}`, "--allow-env"];
  }
}

/** The other services' ports, from the PF's on; guests' from GUESTS on. */
const PF = 0;
const VHOST = 1;
const VF = 2;
const NIC = 3;
const GUESTS = 10;
/** Threads that move frames: the NIC's and vhost's. */
const ENGINES = 2;

function services(options: Options, places: Places): Child[] {
  const { runDir } = options;
  const optional = (flag: string, value: string | number | undefined) => value === undefined ? [] : [flag, `${value}`];
  // With more who have frames to move than CPUs, who polls an empty ring takes the time from whoever has work.
  const crowded = options.guests > 0 && options.guests + ENGINES > navigator.hardwareConcurrency;
  const spinUs = options.spinUs ?? (crowded ? 0 : undefined);
  const net = (own: number, ...others: number[]) =>
    `--allow-net=${[places.listen(own), ...others.map((other) => places.at(other))].join(",")}`;
  const url = (offset: number) => `http://${places.at(offset)}`;
  const guestPorts = Array.from({ length: options.guests }, (_, i) => GUESTS + i);
  const script = (name: string) => ({ name, script: `services/${name}/main.ts` });
  return [
    new Child({
      ...script("nic"),
      permissions: [...places.files, "--allow-ffi", net(NIC)],
      args: [
        ...["--listen", places.listen(NIC), "--socket", `${runDir}/nic.sock`],
        ...["--guest-socket", `${runDir}/passthrough.sock`],
        ...optional("--engine-cpus", options.engineCpus),
        ...optional("--spin-us", spinUs),
        ...optional("--vf-memory-mib", options.vfMemoryMib),
        ...(options.sealedOnly ? ["--sealed-only"] : []),
      ],
    }),
    new Child({
      ...script("pf"),
      permissions: [...places.files, net(PF, NIC, VHOST, VF)],
      args: [
        ...["--listen", places.listen(PF), "--nic", url(NIC), "--vhost", url(VHOST), "--vf", url(VF)],
        ...["--db", `${runDir}/pf.sqlite`, "--run-dir", runDir, "--mac-seed", macSeed(runDir)],
        ...optional("--vfs", options.vfs),
      ],
    }),
    new Child({
      ...script("vhost"),
      permissions: [...places.files, "--allow-ffi", net(VHOST)],
      args: [
        ...["--listen", places.listen(VHOST), "--nic-socket", `${runDir}/nic.sock`, "--run-dir", runDir],
        ...optional("--spin-us", spinUs),
        ...optional("--vf-memory-mib", options.vfMemoryMib),
        ...(options.sealedOnly ? ["--sealed-only"] : []),
      ],
    }),
    new Child({
      ...script("vf"),
      permissions: [...places.files, [net(VF, PF, NIC, VHOST, ...guestPorts), ...options.shells].join(",")],
      args: [
        ...["--listen", places.listen(VF), "--pf", url(PF), "--vhost", url(VHOST), "--nic", url(NIC)],
        ...["--plugins", `${runDir}/plugins`, "--builtin", fromFileUrl(PLUGIN_DIR), "--trust", places.trust],
      ],
    }),
  ];
}

/** A built-in guest on VF `index`, or on a vport if there are not so many VFs. */
function guest(index: number, vfs: number, { runDir, guestArgs = "" }: Options, places: Places): Child {
  const port = index < vfs ? String(index) : `vport${index - vfs}`;
  const socket = index < vfs ? `vf${index}.sock` : `${port}.sock`;
  const listen = places.listen(GUESTS + index);
  return new Child({
    name: `guest ${index}`,
    script: "services/guest/main.ts",
    permissions: [...places.files, "--allow-ffi", `--allow-net=${listen},${places.at(VF)}`],
    args: [
      ...["--listen", listen, "--socket", `${runDir}/${socket}`, "--ip", `10.0.${index >> 8}.${(index & 255) + 1}/16`],
      ...["--api-url", `http://${places.at(GUESTS + index)}`, "--port", port],
      ...["--hypervisor", `http://${places.at(VF)}`],
      ...["--nic-socket", `${runDir}/passthrough.sock`, "--trust", places.trust],
      ...guestArgs.split(" ").filter((word) => word !== ""),
    ],
  });
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

/** A built-in guest that runs. */
export interface RunningGuest {
  api: string;
  ip: string;
  port: string;
}

/** Where this machine reaches a service that listens on every address. */
function reachable(url: string): string {
  return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
}

/** A fabric that is ready. */
export interface ReadyFabric {
  api: string;
  vfs: Vf[];
  guests: RunningGuest[];
  tookMs: number;
}

/** Runs a fabric until a signal ends it, or a service dies too often. `onReady` runs once everything is there. */
export async function runFabric(
  options: Options,
  onReady: (fabric: ReadyFabric) => Promise<void> | void,
): Promise<void> {
  const started = performance.now();
  const stop = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) Deno.addSignalListener(signal, () => stop.resolve());
  // The services get the right to call the C library from here: without it there is nothing to hand on.
  if (Deno.permissions.querySync({ name: "ffi" }).state !== "granted") {
    throw new Error("Cannot start the NIC: FFI is not permitted; start up with --allow-ffi (or deno task up)");
  }
  options.runDir = resolve(options.runDir);
  if (options.port + GUESTS + options.guests > 65535) {
    throw new Error(
      `Cannot use port ${options.port}: the services need ${GUESTS + options.guests} ports from there on`,
    );
  }
  using _lock = claimRunDir(options.runDir);
  await buildWasm();
  const places = new Places(options);
  const children = services(options, places);
  // Guests go first and the NIC last: nobody is to see go what it needs.
  const stopAll = async () => {
    const isGuest = ({ spec }: Child) => spec.name.startsWith("guest ");
    const [nic, ...others] = children;
    await Promise.all(others.filter(isGuest).map((guest) => guest.stop()));
    await Promise.all(others.filter((child) => !isGuest(child)).map((child) => child.stop()));
    await nic?.stop();
  };
  const failed = Promise.withResolvers<never>();
  try {
    const running = async () => {
      const infos = await Promise.all(children.map((child) => child.ready));
      for (const child of children) child.tell();
      const [api, vhost] = [infos[1]?.api, infos[2]?.api].map((url) => reachable(String(url))) as [string, string];
      const vfs = await awaitFabric(api, vhost, options.vfs);
      const guests = await startGuests(api, vfs, options, places, children);
      await onReady({ api, vfs, guests, tookMs: performance.now() - started });
      for (const child of children) child.failed.catch((error) => failed.reject(error));
      await stop.promise;
    };
    await Promise.race([stop.promise, running(), failed.promise, ...children.map((child) => child.failed)]);
    if (!options.json) log("info", "up", "stopping");
  } finally {
    await stopAll();
    cleanUp(options.runDir);
  }
}

/** Starts the built-in guests, those without a VF on vports, and waits until each has its back-end. */
async function startGuests(
  api: string,
  vfs: Vf[],
  options: Options,
  places: Places,
  children: Child[],
): Promise<RunningGuest[]> {
  const client = pfClient(api);
  for (let id = 0; id < options.guests - vfs.length; id++) {
    const there = await client.api.v1.vports[":id"].$get({ param: { id: String(id) } });
    await there.body?.cancel();
    if (there.status === 404) await (await client.api.v1.vports.$post({ json: { id } })).body?.cancel();
  }
  const deadline = Date.now() + READY_DEADLINE_MS;
  return await Promise.all(Array.from({ length: options.guests }, async (_, i) => {
    const child = guest(i, vfs.length, options, places);
    children.push(child);
    const info = await child.ready;
    child.tell();
    const url = reachable(String(info.api));
    for (let ready = false; !ready;) {
      const response = await fetch(`${url}/readyz`);
      await response.body?.cancel();
      ready = response.ok;
      if (!ready && Date.now() > deadline) throw new Error(`guest ${i} did not find its back-end`);
      if (!ready) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    return { api: url, ip: String(info.ip), port: i < vfs.length ? String(i) : `vport${i - vfs.length}` };
  }));
}

/** Removes what a killed service may have left: its sockets and the lock. Settings stay, and so do others' files. */
function cleanUp(runDir: string): void {
  for (const { name } of Deno.readDirSync(runDir)) {
    const path = `${runDir}/${name}`;
    if (name === "up.lock" || (/^(nic|passthrough|uplink|vf\d+|vport\d+)\.sock$/.test(name) && exists(path))) {
      Deno.removeSync(path);
    }
  }
}
