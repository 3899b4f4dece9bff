/** Ports in this process, with a real NIC: by io_uring, and by one call for each frame where there is none. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { defaultPolicy } from "../../shared/api/policy.ts";
import { Engine } from "../../shared/engine/mod.ts";
import { Port, TapBackend } from "../../shared/netdev/mod.ts";
import { namespacePath, Reactor } from "../../shared/os/mod.ts";
import { DeviceServer } from "../../services/nic/device.ts";
import type { NicExports } from "../../services/nic/exports.ts";
import { Nic } from "../../services/nic/nic.ts";
import { LIMITS } from "../support/limits.ts";
import { judgedTest } from "../support/judges.ts";
import { NetNamespace } from "../support/net_namespace.ts";
import { TestProcess } from "../support/process.ts";
import { until } from "../support/wait.ts";

const MACS = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/** A NIC of two VFs in this process. */
class World implements AsyncDisposable {
  readonly nic: Nic;
  readonly reactor = new Reactor();
  readonly dir = Deno.makeTempDirSync({ prefix: "ringfabric-port-" });
  readonly #server: DeviceServer;

  private constructor(engine: Engine<NicExports>) {
    this.nic = new Nic(engine, { ...LIMITS, sealedOnly: true, graceMs: 1000 });
    this.#server = new DeviceServer(this.nic, `${this.dir}/nic.sock`, this.reactor, false);
    const vfs = MACS.map((mac) => ({ ...defaultPolicy(mac), fallback: "none" as const }));
    this.nic.program({ switchMode: "veb", link: "up", pfMac: "02:00:00:00:00:ff", vports: [], vfs });
  }

  static async start(): Promise<World> {
    return new World(await Engine.start<NicExports>({ cpus: [], spinUs: 0 }));
  }

  open(backend: TapBackend, pool: number, plain = false): Promise<Port> {
    const { dir, reactor } = this;
    return Port.open(backend, { deviceSocket: `${dir}/nic.sock`, reactor, pool, owner: "test", plain });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.close();
    await this.nic.close();
    await this.reactor.close();
    await Deno.remove(this.dir, { recursive: true });
  }
}

/** A TAP that is eth0 of a namespace, with the address of VF `vf`. */
function tapIn(namespace: NetNamespace, vf: number): TapBackend {
  const backend = new TapBackend({ name: "eth0", namespace: namespacePath(namespace.name) });
  backend.setLink({ mac: MACS[vf] as string, mtu: 1500 });
  backend.setAddress([10, 0, 0, vf + 1], 24, "");
  backend.switchOn();
  return backend;
}

for (const plain of [false, true]) {
  judgedTest(
    ["uml"],
    `two TAPs ${plain ? "by one call for each frame" : "as the kernel allows"}: TCP both ways`,
    async () => {
      await using world = await World.start();
      await using a = await NetNamespace.make();
      await using b = await NetNamespace.make();
      using first = tapIn(a, 0);
      using second = tapIn(b, 1);
      const ports = [await world.open(first, 0, plain), await world.open(second, 1, plain)];
      if (plain) assertEquals(ports.map(({ io }) => io), ["readv", "readv"]);
      await until("an answer", () => a.reaches("10.0.0.2"));
      await using server = new TestProcess("iperf3 -s", "ip", [
        "netns",
        "exec",
        b.name,
        "iperf3",
        "-s",
        "--forceflush",
      ]);
      await server.expect(/listening/);
      for (const way of [[], ["-R"]]) {
        const { end } = JSON.parse(await a.run("iperf3", "-c", "10.0.0.2", "-t", "1", "-J", ...way));
        assert(end.sum_received.bytes > 1e6, JSON.stringify(end.sum_received));
      }
      for (const { counters } of ports) {
        assertEquals([counters.in_errors, counters.in_cut_off, counters.out_refused, counters.out_runt], [0, 0, 0, 0]);
        assert((counters.in_frames ?? 0) > 100 && (counters.out_frames ?? 0) > 100, JSON.stringify(counters));
      }
      // What is closed has given the VF back, and somebody else may have it at once.
      for (const port of ports) await port.close("done");
      assertEquals(world.nic.state().vfs.map(({ attached, lastDetach }) => [attached, lastDetach]), [
        [false, "done"],
        [false, "done"],
      ]);
      const again = await world.open(first, 0, plain);
      await assertRejects(() => world.open(second, 0, plain), Error, "vf 0 is driven by test");
      await again.close("done");
    },
  );
}

judgedTest(["uml"], "a port ends with its reason when its interface goes, or its NIC", async () => {
  const world = await World.start();
  await using a = await NetNamespace.make();
  using first = tapIn(a, 0);
  const gone = await world.open(first, 0);
  await a.ip("link del eth0");
  assertEquals(await gone.ended, "its interface is gone");
  await gone.close("it is gone");
  using second = tapIn(a, 1);
  const left = await world.open(second, 1);
  await world[Symbol.asyncDispose]();
  assert(["the NIC is gone", "the NIC took the pool back: the NIC stops"].includes(String(await left.ended)));
  await left.close("the NIC is gone");
  assert(left.counters.kicks !== undefined);
});
