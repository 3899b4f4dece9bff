/** What HTTP brings along: entity tags, events that can be resumed, where new things are, counters in one request. */
import "../support/quiet.ts";
import { assert, assertEquals } from "@std/assert";
import { type FabricStats, latencyView, type PfEvent, type Problem, type Vf } from "../../shared/api/mod.ts";
import { histogram } from "../support/latency.ts";
import { TestPf } from "../support/test_pf.ts";
import { uplinkMac } from "../../shared/api/nic.ts";
import { deriveMac } from "../../services/pf/mac.ts";
import { pfApi } from "../../services/pf/api.ts";
import { until } from "../support/wait.ts";
import { Access } from "../../shared/api/mod.ts";

const patchInit = (body: unknown, headers: HeadersInit = {}) => ({
  method: "PATCH",
  headers: { "content-type": "application/json", ...headers },
  body: JSON.stringify(body),
});

Deno.test("a policy has an entity tag: who read an older one is told, and changes nothing", async () => {
  await using pf = await TestPf.start(2);
  for (const path of ["/api/v1/vfs/0", "/api/v1/vports/0"]) {
    if (path.includes("vports")) await pf.addVport();
    const tag = (await pf.app.request(path)).headers.get("etag") ?? "";
    assertEquals((await pf.app.request(path)).headers.get("etag"), tag);
    const changed = await pf.app.request(path, patchInit({ vlan: 9 }, { "if-match": `"x", ${tag}` }));
    assertEquals(changed.status, 200);
    assert(changed.headers.get("etag") !== tag);
    const late = await pf.app.request(path, patchInit({ vlan: 10 }, { "if-match": tag }));
    assertEquals([late.status, (await late.json() as Problem).reason], [412, "changed-meanwhile"]);
    assertEquals((await (await pf.app.request(path)).json() as Vf).vlan, 9);
    assertEquals((await pf.app.request(path, patchInit({ vlan: 0 }, { "if-match": "*" }))).status, 200);
  }
});

Deno.test("with return=minimal a change is answered as soon as it is in force, without a look at the NIC's state", async () => {
  await using pf = await TestPf.start(1);
  const change = async (patch: Record<string, unknown>, prefer: string) => {
    const { status, headers, body } = await pf.app.request("/api/v1/vfs/0", patchInit(patch, { prefer }));
    return [status, headers.get("preference-applied"), body === null];
  };
  for (const [i, prefer] of ["return=minimal", 'respond-async, Return = "minimal"; x=1'].entries()) {
    assertEquals(await change({ vlan: i + 1 }, prefer), [204, "return=minimal", true]);
    assertEquals((await (await pf.app.request("/api/v1/vfs/0")).json()).vlan, i + 1);
  }
  for (const prefer of ["return=representation", "x-return=minimal", "return=minimally"]) {
    assertEquals(await change({ vlan: 9 }, prefer), [200, null, false], prefer);
  }
  assertEquals((await change({ vlan: 5000 }, "return=minimal"))[0], 422, "a refusal says why all the same");
});

Deno.test("what a VF's state says changes no entity tag", async () => {
  await using pf = await TestPf.start(1);
  const tag = async () => (await pf.app.request("/api/v1/vfs/0")).headers.get("etag");
  const before = await tag();
  pf.nic.pools.set(0, { attached: true, owner: "somebody" });
  assertEquals(await tag(), before);
});

/** The first `count` events of a stream, each with its id. */
async function read(pf: TestPf, count: number, lastId?: string): Promise<{ id: string; event: PfEvent }[]> {
  const headers: HeadersInit = lastId === undefined ? {} : { "last-event-id": lastId };
  const response = await pf.app.request("/api/v1/events", { headers });
  const events: { id: string; event: PfEvent }[] = [];
  let text = "";
  for await (const chunk of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
    text += chunk;
    for (const part of text.split("\n\n").slice(0, -1)) {
      const [, data] = /^data: ?(.*)$/m.exec(part) ?? [];
      const [, id = ""] = /^id: ?(.*)$/m.exec(part) ?? [];
      if (data !== undefined) events.push({ id, event: JSON.parse(data) });
    }
    text = text.slice(text.lastIndexOf("\n\n") + 2);
    if (events.length >= count) break;
    if (count > 0 && events.length === 0 && lastId === undefined) void pf.set("vfs/0", { vlan: ++vlan });
  }
  return events;
}
let vlan = 0;

Deno.test("a listener that comes back says which event it has heard last, and gets those since then", async () => {
  await using pf = await TestPf.start(1);
  const [first] = await read(pf, 1);
  for (const next of [100, 101, 102]) await pf.set("vfs/0", { vlan: next });
  const since = await read(pf, 3, first?.id);
  assertEquals(since.map(({ event }) => "changes" in event && event.changes), [{ vlan: 100 }, { vlan: 101 }, {
    vlan: 102,
  }]);
  const [missed] = await read(pf, 1, "another-17");
  assertEquals(missed?.event.type, "missed", "of another PF, or too long ago");
});

Deno.test("events name what has changed, not what was asked for; what changes nothing is no event", async () => {
  await using pf = await TestPf.start(1);
  await pf.set("vfs/0", { trust: true, promisc: true });
  pf.events.length = 0;
  await pf.set("vfs/0", { trust: false });
  await pf.set("vfs/0", { trust: false, vlan: 0 });
  assertEquals(pf.events, [{ type: "vf-changed", vf: 0, changes: { trust: false, promisc: false } }]);
});

Deno.test("a new vport says where it is; all counters are one request", async () => {
  await using pf = await TestPf.start(2);
  const made = await pf.app.request("/api/v1/vports", { ...patchInit({ id: 3 }), method: "POST" });
  assertEquals([made.status, made.headers.get("location")], [201, "/api/v1/vports/3"]);
  pf.nic.pools.set(1, { counters: { tx_frames: 7 } });
  pf.software.states = [{ id: 3, attached: true, counters: { rx_frames: 2 }, latency: histogram({ 3: 1 }, 7000) }];
  assertEquals(await pf.get<FabricStats>("stats"), {
    vfs: [
      { id: 0, counters: {}, latency: latencyView() },
      { id: 1, counters: { tx_frames: 7 }, latency: latencyView() },
    ],
    vports: [{ id: 3, counters: { rx_frames: 2 }, latency: latencyView(histogram({ 3: 1 }, 7000)) }],
    pf: {},
    uplink: {},
  });
});

Deno.test("an address of null is the one that the VF begins with, which its guest may change", async () => {
  await using pf = await TestPf.start(1);
  const { mac } = await pf.get<Vf>("vfs/0");
  await pf.set("vfs/0", { mac: "02:ab:00:00:00:01" });
  const reset = await pf.set<Vf>("vfs/0", { mac: null });
  assertEquals([reset.mac, reset.macFixed], [mac, false]);
});

Deno.test("whoever listens is told that a VF's guest stands still for its move", async () => {
  await using pf = await TestPf.start(1);
  pf.events.length = 0;
  for (const port of ["uplink", "vport0", 0] as const) pf.software.tell({ type: "guest-paused", port });
  assertEquals(pf.events, [{ type: "guest-paused", vf: 0 }]);
});

Deno.test("a wish by the control queue is granted or refused, and its guest and whoever listens are told", async () => {
  await using pf = await TestPf.start(1);
  await pf.set("vfs/0", { mac: "02:ab:00:00:00:01" });
  pf.events.length = 0;
  const wish = async (
    id: string,
    port: number | "uplink",
    wish: Record<string, unknown>,
    until = Date.now() + 5000,
  ) => {
    pf.software.tell({ type: "wish", id, port, wish, until });
    while (!pf.software.answers.some(([of]) => of === id)) await new Promise((resolve) => setTimeout(resolve, 1));
    return pf.software.answers.find(([of]) => of === id)?.[1];
  };
  assertEquals(await wish("a", 0, { multicast: ["01:00:5e:00:00:01"] }), { granted: true });
  assertEquals(await wish("b", 0, { multicast: ["01:00:5e:00:00:01"] }), { granted: true });
  const detail = "vf 0 may not change its address: the PF has set 02:ab:00:00:00:01";
  assertEquals(await wish("c", 0, { mac: "02:ab:00:00:00:02" }), { granted: false, reason: detail });
  assertEquals(await wish("d", 0, { unicast: ["02:ab:00:00:00:09"] }), {
    granted: false,
    reason: "vf 0 may not have further addresses (02:ab:00:00:00:09): it is not trusted",
  });
  assertEquals(await wish("e", 0, { promisc: false, multicast: null }), { granted: true });
  assertEquals(await wish("f", "uplink", { promisc: true }), { granted: true });
  assertEquals((await wish("g", 7, { promisc: true }))?.granted, false);
  const uplink = uplinkMac(deriveMac("test", "pf"));
  assertEquals(await wish("h", 0, { mac: uplink }), {
    granted: false,
    reason: `vf 0 may not have the address ${uplink}: it is kept for the uplink's port`,
  });
  const told = ["vf-changed", "wish-refused", "wish-refused", "vf-changed", "wish-refused"];
  assertEquals(pf.events.map(({ type }) => type), told);
  assertEquals(await wish("i", 0, { multicast: "none" }, Date.now() - 1), {
    granted: false,
    reason: "vf 0's guest no longer waits for it",
  });
  assertEquals(await wish("j", 0, { mac: "01:00:00:00:00:01" }).then((answer) => answer?.granted), false);
  assertEquals((await pf.get<Vf>("vfs/0")).guestMulticast, null);
});

Deno.test("a listener that has missed much is told all that is kept, and that there was more", async () => {
  await using pf = await TestPf.start(8);
  for (let n = 1; n <= 1100; n++) await pf.fabric.changeVf(n % 8, { maxTxRate: n });
  const answer = await pf.app.request("/api/v1/events", { headers: { "last-event-id": "another-1" } });
  const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (!text.includes('"maxTxRate":1100')) text += (await reader?.read())?.value ?? assert(false, "it has ended");
  assertEquals(text.match(/^data: /gm)?.length, 1001);
  await reader?.cancel();
});

Deno.test("a guest that comes and goes all the time has nobody else's events forgotten", async () => {
  await using pf = await TestPf.start(2);
  const [first] = await read(pf, 1);
  for (let n = 1; n <= 1100; n++) pf.software.tell({ type: "guest-paused", port: 1 });
  await pf.set("vfs/0", { maxTxRate: 5 });
  const since = await read(pf, 252, first?.id);
  const types = Map.groupBy(since, ({ event }) => event.type);
  assertEquals([types.get("guest-paused")?.length, types.get("vf-changed")?.length], [250, 1], "of vf 1, of vf 0");
  assertEquals(since[0]?.event.type, "missed", "some of vf 1's are not kept any more");
  assertEquals(
    (await read(pf, 1, since.at(-2)?.id)).map(({ event }) => event.type),
    ["vf-changed"],
    "nothing is missed",
  );
});

Deno.test("HEAD of the events leaves no listener behind; too many listeners are refused", async () => {
  await using pf = await TestPf.start(1);
  const app = pfApi(pf.fabric, new Access({ token: "secret" }));
  const headers = { authorization: "Bearer secret" };
  const ask = (method: string) => app.request("http://127.0.0.1/api/v1/events", { method, headers });
  for (let i = 0; i < 200; i++) assertEquals((await ask("HEAD")).status, 200);
  const streams: Response[] = [];
  for (let i = 0; i < 128; i++) streams.push(await ask("GET"));
  assertEquals(streams.map(({ status }) => status), Array(128).fill(200));
  assertEquals((await ask("GET")).status, 503);
  for (const { body } of streams) await body?.cancel();
  await until("their places to be free", async () => {
    const next = await ask("GET");
    await next.body?.cancel();
    return next.status === 200;
  });
});
