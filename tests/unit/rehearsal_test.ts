/** A vhost process that stands by takes a guest over that does not exist, and has nothing of it afterwards. */
import { assert, assertEquals } from "@std/assert";
import { Emulation } from "../../services/vhost/emulation.ts";
import { rehearse } from "../../services/vhost/rehearsal.ts";
import { STANDBY_VERSION, type VhostMirror } from "../../services/vhost/standby/mod.ts";
import { POOL_COUNT } from "../../shared/layout/nic.ts";
import type { TenantLimits } from "../../shared/engine/mod.ts";
import { fdTarget, Reactor } from "../../shared/os/mod.ts";
import { Mirror } from "../../shared/standby/mod.ts";
import { LIMITS } from "../support/limits.ts";
import { openFileOf } from "../support/open_files.ts";
import { until } from "../support/wait.ts";

/** The open files of this process that were made for a rehearsal. */
function rehearsed(): string[] {
  return [...Deno.readDirSync("/proc/self/fd")].flatMap(({ name }) => {
    try {
      return /ringfabric-rehearsal/.test(fdTarget(Number(name))) ? [openFileOf(Number(name))] : [];
    } catch {
      return []; // closed since the folder was read
    }
  });
}

/** The strictest that an operator can say. */
const STRICTEST = { bytesMax: 2 * 1024 ** 2, sealedOnly: true, receivesMax: 2, submissionsMax: 2, bufferBytesMax: 0 };

for (const [name, limits] of Object.entries({ "as a service begins": LIMITS, "the strictest": STRICTEST })) {
  Deno.test(`who stands by for vhost rehearses a take-over, limits ${name}: all of it is done, and nothing is left`, () =>
    rehearseTwice(limits));
}

async function rehearseTwice(limits: TenantLimits): Promise<void> {
  const emulation = await Emulation.start({ cpus: [], spinUs: 0, standsBy: true, ...limits });
  const { engine, tenants } = emulation;
  const mirror: VhostMirror = new Mirror(engine.view, { service: "vhost", version: STANDBY_VERSION });
  const reactor = new Reactor();
  const runDir = Deno.makeTempDirSync();
  const done: string[] = [];
  for (const name of ["enterAt", "adoptPair", "takeOver", "disconnect", "leave"] as const) {
    const real = emulation[name].bind(emulation) as (...args: unknown[]) => unknown;
    Object.assign(emulation, { [name]: (...args: unknown[]) => (done.push(name), real(...args)) });
  }
  try {
    const free = engine.arena.freeBytes;
    for (let time = 0; time < 2; time++) {
      await rehearse({ emulation, reactor, mirror, runDir });
      assertEquals(done.splice(0), ["enterAt", "adoptPair", "takeOver", "disconnect", "leave"]);
      assert(engine.standsBy);
      assertEquals(engine.arena.freeBytes, free);
      assertEquals(Array.from({ length: POOL_COUNT }, (_, pool) => tenants.has(pool)).includes(true), false);
      await until("every descriptor of the guest to be closed", () => rehearsed().length === 0);
    }
  } finally {
    await emulation.close();
    await reactor.close();
    Deno.removeSync(runDir, { recursive: true });
  }
}
