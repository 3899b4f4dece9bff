/** The vhost service's API: its ports, changes of their data paths with the reasons why not, and the switch's programme. */
import { assertEquals } from "@std/assert";
import {
  ApiError,
  type DataPathChange,
  type PortState,
  STARTED_AT,
  type SwitchProgramme,
} from "../../shared/api/mod.ts";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { pcapngHeader } from "../../shared/pcap/mod.ts";
import { type PortsPart, type SwitchPart, vhostApi } from "../../services/vhost/api.ts";
import type { PortName } from "../../services/vhost/port_context.ts";
import { Wishes } from "../../services/vhost/wishes.ts";
import { ask, refusalOf } from "../support/app.ts";
import { histogram } from "../support/latency.ts";

/** Ports 3, the uplink's and vport0's; nothing is behind them. */
class FakePorts implements PortsPart {
  unreadiness: string | undefined;
  readonly changes: unknown[] = [];
  trouble: Error | undefined;
  readonly #names: PortName[] = [3, "uplink", "vport0"];

  get states(): PortState[] {
    return this.#names.map((port) => ({
      port,
      dataPath: "emulated",
      role: "server",
      path: "/run/x",
      connected: false,
    }));
  }

  state(name: PortName): PortState | undefined {
    return this.states.find(({ port }) => port === name);
  }

  // deno-lint-ignore require-await
  async configure(name: PortName, role: "server" | "client", path: string | undefined): Promise<PortState> {
    this.changes.push([name, role, path]);
    return this.state(name) as PortState;
  }

  // deno-lint-ignore require-await
  async setDataPath(name: PortName, { dataPath: path }: DataPathChange): Promise<PortState> {
    if (this.trouble) throw this.trouble;
    this.changes.push([name, path]);
    return this.state(name) as PortState;
  }
}

/** The switch: what it was programmed with. */
class FakeSwitch implements SwitchPart {
  readonly programmes: SwitchProgramme[] = [];
  readonly ids = [0];
  readonly states = [{ id: 0, attached: true, counters: { rx_frames: 3 }, latency: histogram() }];
  readonly captures = { open: () => ({ stream: () => new Blob([pcapngHeader(["vport0"])]).stream() }) };

  apply(programme: SwitchProgramme): Promise<void> {
    this.programmes.push(programme);
    return Promise.resolve();
  }
}

function start() {
  const [ports, software, wishes] = [new FakePorts(), new FakeSwitch(), new Wishes()];
  return {
    ports,
    software,
    wishes,
    app: vhostApi({ ports, software, wishes, standby: () => ({ state: "none" }) }, undefined),
  };
}

Deno.test("ports are VFs' numbers, the uplink, and vports", async () => {
  const { app } = start();
  assertEquals((await ask<PortState[]>(app, "GET", "/api/v1/ports")).body.map(({ port }) => port), [
    3,
    "uplink",
    "vport0",
  ]);
  for (const port of [3, "uplink", "vport0"]) {
    assertEquals((await ask<PortState>(app, "GET", `/api/v1/ports/${port}`)).body.port, port);
  }
  assertEquals(refusalOf(await ask(app, "GET", "/api/v1/ports/4")), "404 port: there is no port 4");
  assertEquals(
    refusalOf(await ask(app, "PUT", "/api/v1/ports/4/dataPath", { dataPath: "guest" })),
    "404 port: there is no port 4",
  );
  assertEquals((await ask(app, "GET", "/api/v1/ports/vport")).status, 404);
});

Deno.test("a data path is changed, or the reason why not is passed on with its name", async () => {
  const { app, ports } = start();
  const change = (dataPath: string) => ask(app, "PUT", "/api/v1/ports/3/dataPath", { dataPath });
  assertEquals([(await change("guest")).status, ports.changes], [200, [[3, "guest"]]]);
  assertEquals((await change("direct")).body.field, "dataPath");
  ports.trouble = new DeviceRefusal("unsealed", "region 0 could be truncated: seal it");
  assertEquals(refusalOf(await change("passthrough")), "409 dataPath (unsealed): region 0 could be truncated: seal it");
  ports.trouble = new ApiError(409, "no guest is connected that could drive the VF by itself", "dataPath");
  assertEquals(
    refusalOf(await change("guest")),
    "409 dataPath: no guest is connected that could drive the VF by itself",
  );
  ports.trouble = new Error("the VF's transmit queue did not run empty");
  assertEquals(refusalOf(await change("guest")), "409 dataPath: the VF's transmit queue did not run empty");
});

Deno.test("a port listens, or connects to a front-end's socket, which is named by an absolute path", async () => {
  const { app, ports } = start();
  const configure = (body: unknown) => ask(app, "PUT", "/api/v1/ports/uplink", body);
  await configure({ role: "server" });
  await configure({ role: "client", path: "/tmp/testpmd.sock" });
  assertEquals(ports.changes, [["uplink", "server", undefined], ["uplink", "client", "/tmp/testpmd.sock"]]);
  assertEquals((await configure({ role: "client", path: "testpmd.sock" })).body.field, "path");
  assertEquals((await configure({ role: "client", path: `/${"x".repeat(107)}` })).body.field, "path");
  assertEquals((await configure({ role: "server", path: "/x" })).body.field, "path");
});

Deno.test("the switch takes a whole programme, and says who is attached", async () => {
  const { app, software } = start();
  const programme = { switchMode: "veb", link: "up", vports: [], drivesPf: false };
  assertEquals((await ask<unknown>(app, "PUT", "/api/v1/vports", programme)).body, software.states);
  assertEquals(software.programmes, [programme] as unknown[]);
  assertEquals((await ask(app, "PUT", "/api/v1/vports", { ...programme, link: "sideways" })).body.field, "link");
  assertEquals(software.programmes.length, 1);
});

Deno.test("it is ready once every VF has its port", async () => {
  const { app, ports } = start();
  assertEquals((await ask(app, "GET", "/readyz")).status, 200);
  ports.unreadiness = "the NIC does not answer";
  const { status, body } = await ask(app, "GET", "/readyz");
  assertEquals([status, body], [503, {
    ready: false,
    reason: "the NIC does not answer",
    pid: Deno.pid,
    startedAt: STARTED_AT,
  }]);
});
