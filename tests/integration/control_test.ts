/** The control plane: bad input, restarts of services under traffic, what is kept and what is left behind. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { socketPath } from "../../shared/api/mod.ts";
import { Bystanders } from "../support/bystanders.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";
import { authorized, TEST_TOKEN } from "../support/token.ts";

/** A PATCH as any client might send it. */
async function patch(fabric: TestFabric, path: string, body: unknown, type = "application/json") {
  const response = await authorized(fabric.info.api + path, {
    method: "PATCH",
    ...(type ? { headers: { "content-type": type } } : {}),
    body: typeof body === "string" || body instanceof Uint8Array ? body as BodyInit : JSON.stringify(body),
  });
  return { status: response.status, type: response.headers.get("content-type") ?? "", body: await response.json() };
}

Deno.test("bad input is refused with a problem document that names the field, and changes nothing", async (t) => {
  await using fabric = await TestFabric.start(2);
  const bad: [unknown, string, number?][] = [
    [{ mac: "01:00:5e:00:00:01" }, "mac"],
    [{ mac: "ff:ff:ff:ff:ff:ff" }, "mac"],
    [{ mac: "00:00:00:00:00:00" }, "mac"],
    [{ mac: "02:00:00:00:00" }, "mac"],
    [{ mac: "02:00:00:00:00:0g" }, "mac"],
    [{ mac: 5 }, "mac"],
    [{ vlan: 4095 }, "vlan"],
    [{ vlan: -1 }, "vlan"],
    [{ vlan: "10" }, "vlan"],
    [{ vlan: 1.5 }, "vlan"],
    [{ vlan: null }, "vlan"],
    [{ qos: 3 }, "qos"],
    [{ vlan: 10, qos: 8 }, "qos"],
    [{ vlanProto: "802.1ad" }, "vlanProto"],
    [{ vlan: 10, vlanProto: "802.1x" }, "vlanProto"],
    [{ trunk: [4095] }, "trunk.0"],
    [{ trunk: [0] }, "trunk.0"],
    [{ trunk: "10" }, "trunk"],
    [{ minTxRate: 200, maxTxRate: 100 }, "minTxRate"],
    [{ maxTxRate: -1 }, "maxTxRate"],
    [{ maxTxRate: 1e12 }, "maxTxRate"],
    [{ spoofCheck: "on" }, "spoofCheck"],
    [{ trust: 1 }, "trust"],
    [{ promisc: true }, "promisc"],
    [{ linkState: "up" }, "linkState"],
    [{ colour: "red" }, "colour"],
    [{ vlan: 10, mac: "01:00:00:00:00:01" }, "mac"],
    [{ id: 7 }, "id"],
    [{ mac: fabric.vf(0).mac }, "mac", 409],
    [[], "body"],
    ['"text"', "body"],
    ["", "body", 400],
    ["   ", "body", 400],
    ["{", "body", 400],
    ["not json", "body", 400],
    ["x".repeat(1024 * 1024), "body", 413],
  ];
  const before = await fabric.get("/api/v1/vfs/1");
  for (const [body, field, status = 422] of bad) {
    await t.step(JSON.stringify(body).slice(0, 60), async () => {
      const answer = await patch(fabric, "/api/v1/vfs/1", body);
      assertEquals(answer.status, status, JSON.stringify(answer.body));
      assertMatch(answer.type, /application\/problem\+json/);
      assertEquals(answer.body.field, field);
      assertEquals(answer.body.status, status);
      assert(answer.body.detail.length > 10);
      assertEquals(await fabric.get("/api/v1/vfs/1"), before);
    });
  }
  await t.step("the PF's own address", async () => {
    const { pfMac } = await fabric.get("/api/v1/nic");
    assertEquals((await patch(fabric, "/api/v1/vfs/1", { mac: pfMac })).status, 409);
  });
  await t.step("other content types", async () => {
    assertEquals((await patch(fabric, "/api/v1/vfs/1", '{"vlan":5}', "text/plain")).status, 415);
    assertEquals((await patch(fabric, "/api/v1/vfs/1", '{"vlan":5}', "application/x-www-form-urlencoded")).status, 415);
  });
  await t.step("unknown VFs and paths", async () => {
    for (const id of ["2", "99", "-1", "abc", "1.5", "1e0", "99999999999"]) {
      const answer = await patch(fabric, `/api/v1/vfs/${id}`, { vlan: 1 });
      assertEquals([answer.status, answer.body.field], [404, "id"], id);
    }
    assertEquals((await authorized(`${fabric.info.api}/api/v1/vfs/9/stats`).then((r) => r.json())).status, 404);
    assertEquals((await patch(fabric, "/api/v1/nothing", {})).status, 404);
    assertEquals((await patch(fabric, "/api/v1/nic", { numVfs: 257 })).body.field, "numVfs");
    assertEquals((await patch(fabric, "/api/v1/nic", { switchMode: "hub" })).body.field, "switchMode");
  });
  assertEquals(await fabric.get("/api/v1/vfs/1"), before);
});

Deno.test("what ip link does: VLAN 0 takes priority and protocol along, MACs are normalised, unset fields stay", async () => {
  await using fabric = await TestFabric.start(1);
  const set = async (body: unknown) => (await patch(fabric, "/api/v1/vfs/0", body)).body;
  const tagged = await set({ vlan: 100, qos: 5, vlanProto: "802.1ad", mac: "02-AB-CD-00-00-01", trunk: [7, 5, 7] });
  assertEquals([tagged.mac, tagged.trunk, tagged.qos], ["02:ab:cd:00:00:01", [5, 7], 5]);
  const untagged = await set({ vlan: 0 });
  assertEquals([untagged.qos, untagged.vlanProto, untagged.trunk], [0, "802.1Q", [5, 7]]);
  assertEquals((await set({ trust: true, promisc: true })).promisc, true);
  assertEquals((await set({ trust: false })).promisc, false);
  assertEquals((await set({})).trust, false);
  const { body } = await patch(fabric, "/api/v1/vfs/0/mode", { mode: "emulated" });
  assertEquals(body.status, 405, "mode is set with PUT");
});

Deno.test("settings survive pf's death and a new `up`; addresses are stable", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    const macs: string[][] = [];
    for (const round of [0, 1]) {
      const fabric = await TestFabric.start(3, [], runDir);
      macs.push(fabric.info.vfs.map((vf) => vf.mac));
      if (round === 0) {
        await fabric.patch(1, { vlan: 42, qos: 2, maxTxRate: 500 });
        const { pf } = fabric.pids();
        Deno.kill(pf ?? 0, "SIGKILL");
        await until("pf to be started again", () => fabric.pids().pf !== undefined && fabric.pids().pf !== pf);
        await until(
          "pf to answer",
          () =>
            authorized(`${fabric.info.api}/readyz`).then((r) => r.body?.cancel().then(() => r.ok)).catch(() => false),
        );
      }
      const { vlan, qos, maxTxRate } = await fabric.get("/api/v1/vfs/1");
      assertEquals([vlan, qos, maxTxRate], [42, 2, 500]);
      await fabric.process.end("SIGINT");
    }
    assertEquals(macs[0], macs[1]);
    for (const mac of macs[0] ?? []) {
      assertEquals(parseInt(mac.slice(0, 2), 16) & 3, 2, "locally administered, unicast");
    }
  } finally {
    await Deno.remove(runDir, { recursive: true });
  }
});

Deno.test("killing pf under traffic loses no frame; the queues never stop", async () => {
  await using fabric = await TestFabric.start(2);
  await using bystanders = await Bystanders.attach(fabric);
  const [a, b] = bystanders.guests;
  const macs = [fabric.vf(0).mac, fabric.vf(1).mac];
  const { pf } = fabric.pids();
  let [sent, received] = [0, 0];
  let killed = false;
  const end = performance.now() + 3000;
  while (performance.now() < end) {
    b.guest.fill(32 - b.guest.posted());
    const batch = Array.from({ length: 16 }, (_, i) => {
      const payload = new Uint8Array(60);
      new DataView(payload.buffer).setUint32(0, sent + i);
      return frame({ dst: macs[1] ?? "", src: macs[0] ?? "", payload });
    });
    a.guest.send(batch);
    sent += batch.length;
    a.kick();
    await until("the batch", () => {
      for (const bytes of b.guest.receive()) {
        assertEquals(new DataView(bytes.buffer).getUint32(14), received, "in order, none lost, none twice");
        received++;
      }
      while (a.guest.tx().popUsed());
      return received === sent;
    });
    if (!killed && sent > 2000) {
      killed = true;
      Deno.kill(pf ?? 0, "SIGKILL");
    }
  }
  assert(killed && sent > 4000, `${sent} frames`);
  await until("pf to be back", () => fabric.patch(0, { qos: 0 }).then(() => true).catch(() => false));
});

Deno.test("killing the NIC or vhost: the fabric comes back by itself and guests go on", async () => {
  await using fabric = await TestFabric.start(2);
  {
    await using bystanders = await Bystanders.attach(fabric);
    await bystanders.check();
    const { nic } = fabric.pids();
    Deno.kill(nic ?? 0, "SIGKILL");
    await until("the rings to run in the new NIC", async () => {
      const vfs = await fabric.get("/api/v1/vfs").catch(() => []);
      return vfs.length === 2 && vfs.every((vf: { queues: unknown[] | null }) => vf.queues?.length === 2);
    });
    await bystanders.check();
  }
  const { vhost } = fabric.pids();
  Deno.kill(vhost ?? 0, "SIGKILL");
  await until(
    "vhost to be back",
    () => fabric.pids().vhost !== undefined && fabric.pids().vhost !== vhost,
  );
  await until("guests to attach again", async () => {
    try {
      await using again = await Bystanders.attach(fabric);
      await again.check();
      return true;
    } catch {
      return false;
    }
  });
});

Deno.test("killing vhost leaves the queues running: their guest's frames flow until a successor takes over", async () => {
  await using fabric = await TestFabric.start(2);
  await using bystanders = await Bystanders.attach(fabric);
  await bystanders.check();
  Deno.kill(fabric.pid("vhost"), "SIGKILL");
  for (let i = 0; i < 20; i++) await bystanders.check();
});

for (const format of ["split", "packed"] as const) {
  Deno.test(`a guest that ends while vhost is dead leaves the next one nothing of its rings (${format})`, async () => {
    await using fabric = await TestFabric.start(2);
    const bystanders = await Bystanders.attach(fabric, format);
    await bystanders.check(5);
    const vhost = fabric.pid("vhost");
    // It sees its front-ends go no more.
    Deno.kill(vhost, "SIGSTOP");
    await bystanders[Symbol.asyncDispose]();
    Deno.kill(vhost, "SIGKILL");
    await using next = await until(
      "guests to attach to the next one",
      () => Bystanders.attach(fabric, format).catch(() => undefined),
    );
    await next.check();
  });
}

Deno.test("VFs come and go at run time; one that is in use stays", async () => {
  await using fabric = await TestFabric.start(2);
  const nic = async (body: unknown) => await patch(fabric, "/api/v1/nic", body);
  assertEquals((await nic({ numVfs: 5 })).body.numVfs, 5);
  await until(
    "the new VF's socket",
    () => Deno.stat(socketPath(fabric.runDir, "vf4")).then(() => true).catch(() => false),
  );
  {
    await using front = await FrontEnd.connect(socketPath(fabric.runDir, "vf4")).start();
    void front;
    const refused = await nic({ numVfs: 3 });
    assertEquals(refused.status, 409);
    assertMatch(refused.body.detail, /vf 4 cannot be removed: vhost .* drives it; stop its guest first/);
    assertEquals((await fabric.get("/api/v1/vfs")).length, 5);
  }
  await until("the VF to be free", async () => !(await fabric.get("/api/v1/vfs/4")).attached);
  assertEquals((await nic({ numVfs: 2 })).status, 200);
  await until(
    "the socket to go",
    () => Deno.stat(socketPath(fabric.runDir, "vf4")).then(() => false).catch(() => true),
  );
});

Deno.test("vhost as client: it connects to a front-end that listens, again and again", async () => {
  await using fabric = await TestFabric.start(1);
  const path = `${fabric.runDir}/guest.sock`;
  const put = async (body: unknown) =>
    await authorized(`${fabric.url("vhost")}/api/v1/ports/0`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  assertEquals((await put({ role: "client", path: "relative" })).status, 422);
  for (const elsewhere of ["/run/dbus/system_bus_socket", `${fabric.runDir}/../guest.sock`]) {
    const refused = await (await put({ role: "client", path: elsewhere })).json();
    assertEquals([refused.status, refused.field, refused.reason], [422, "path", "not-allowed"]);
  }
  assertEquals((await (await put({ role: "client", path })).json()).role, "client");
  const { Reactor, UnixListener } = await import("../../shared/os/mod.ts");
  for (let round = 0; round < 2; round++) {
    await using reactor = new Reactor();
    using listener = UnixListener.listen(path, "stream", reactor);
    const socket = await listener.accept();
    if (!socket) throw new Error("the listener was closed");
    socket.send(new Uint8Array(new Uint32Array([1, 1, 0]).buffer));
    const answer = new Uint8Array(20);
    assertEquals((await socket.receive(answer)).bytes > 0, true);
    socket.close();
  }
  assertEquals((await put({ role: "server" })).status, 200);
  await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
  void front;
});

Deno.test("events, metrics, OpenAPI and docs are there", async () => {
  await using fabric = await TestFabric.start(2);
  await using events = await fabric.events();
  await fabric.patch(1, { vlan: 9 });
  {
    await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
    await front.stopVring(0);
  }
  for (const type of ["vf-changed", "attached", "detached"]) await events.until((event) => event.type === type);
  const metrics = await (await authorized(`${fabric.info.api}/metrics`)).text();
  for (
    const name of ['ringfabric_vf_rx_frames_total{vf="1"} 0', "ringfabric_engine_busy_ratio", "ringfabric_nic_up 1"]
  ) {
    assert(metrics.includes(name), `${name} is in the metrics`);
  }
  const openapi = await fabric.get("/openapi.json");
  assert(openapi.paths["/api/v1/vfs/{id}"].patch);
  assertEquals(
    await (await authorized(`${fabric.info.api}/docs/swagger-ui-bundle.js`)).text().then((text) =>
      text.length > 100_000
    ),
    true,
  );
});

Deno.test("the token of RINGFABRIC_TOKEN is asked for; health checks need none", async () => {
  Deno.env.set("RINGFABRIC_TOKEN", "a-test-token");
  try {
    await using fabric = await TestFabric.start(1, ["--host", "0.0.0.0"]);
    const status = async (path: string, headers: HeadersInit = {}) => {
      const response = await fetch(fabric.info.api + path, { headers });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals(await status("/api/v1/vfs"), 401);
    assertEquals(await status("/api/v1/vfs", { authorization: "Bearer wrong" }), 401);
    assertEquals(await status("/api/v1/vfs", { authorization: "Bearer a-test-token" }), 200);
    assertEquals(await status("/readyz"), 200);
  } finally {
    Deno.env.set("RINGFABRIC_TOKEN", TEST_TOKEN);
  }
});

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`${signal} under traffic leaves no process, socket or shared memory behind`, async () => {
    const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
    const shm = () => [...Deno.readDirSync("/dev/shm")].map((entry) => entry.name);
    const before = shm();
    const fabric = await TestFabric.start(2, [], runDir);
    const bystanders = await Bystanders.attach(fabric);
    await bystanders.check();
    const pids = Object.values(fabric.pids());
    assertEquals(pids.length, 4);
    const { code } = await fabric.process.end(signal);
    assertEquals(code, 0);
    await bystanders[Symbol.asyncDispose]();
    for (const pid of pids) assertEquals(await Deno.stat(`/proc/${pid}`).then(() => true).catch(() => false), false);
    assertEquals([...Deno.readDirSync(runDir)].map((entry) => entry.name), ["pf.sqlite"]);
    assertEquals(shm().filter((name) => !before.includes(name)), []);
    await Deno.remove(runDir, { recursive: true });
  });
}
