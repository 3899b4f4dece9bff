/** The NIC's API: the PF's programme, holds and leases, and what is said to whoever is refused. */
import { assertEquals } from "@std/assert";
import type { HoldGrant, LeaseView, Programme, TakenBack } from "../../shared/api/mod.ts";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import type { CaptureRequest } from "../../shared/engine/mod.ts";
import { pcapngHeader } from "../../shared/pcap/mod.ts";
import { nicApi, type NicPart, type UplinksPart } from "../../services/nic/api.ts";
import { ask, refusalOf } from "../support/app.ts";

/** A NIC that has VF 0 and nothing behind it. */
class FakeNic implements NicPart {
  readonly instance = "nic-1";
  readonly pools: NicPart["pools"] = { programme: undefined, filters: () => [], vfCount: 2 };
  /** What was to be captured. */
  readonly captured: CaptureRequest[] = [];
  readonly captures = {
    open: (request: CaptureRequest) => {
      if (this.trouble) throw this.trouble;
      this.captured.push(request);
      return { stream: () => new Blob([pcapngHeader(["vf0"])]).stream() };
    },
  };
  /** What it was asked for, in order. */
  readonly calls: unknown[] = [];
  trouble: DeviceRefusal | undefined;

  #call(...call: unknown[]): void {
    if (call[1] !== 0 && call[0] !== "program") throw new DeviceRefusal("no-vf", `vf ${call[1]} does not exist`);
    if (this.trouble) throw this.trouble;
    this.calls.push(call);
  }

  program(programme: Programme): void {
    this.#call("program", programme.vfs.length);
  }

  state(): never {
    throw new Error("not in this test");
  }

  hold(vf: number, deadlineMs: number): HoldGrant {
    this.#call("hold", vf, deadlineMs);
    return { token: "token", id: "hold-1" };
  }

  // deno-lint-ignore require-await
  async release(vf: number): Promise<void> {
    this.#call("release", vf);
  }

  takeBack(vf: number, _reason: string, final = false): TakenBack {
    this.#call("takeBack", vf, final);
    return { takenBack: true, unfetched: 3 };
  }

  leaseOf(vf: number): LeaseView {
    this.#call("leaseOf", vf);
    return { driver: "nobody", allotted: false };
  }

  subscribe(): () => void {
    return () => {};
  }
}

const NO_UPLINKS: UplinksPart = { states: () => ({}), set: () => Promise.reject(new Error("not in this test")) };
const PROGRAMME = { switchMode: "veb", link: "up", pfMac: "02:00:00:00:00:ff", vfs: [] };

Deno.test("a programme is put in force whole, or refused with what is in its way", async () => {
  const nic = new FakeNic();
  const app = nicApi(nic, NO_UPLINKS, undefined);
  assertEquals((await ask<unknown>(app, "PUT", "/api/v1/programme", PROGRAMME)).body, { instance: "nic-1" });
  nic.trouble = new DeviceRefusal("vf-in-use", "vf 1 cannot be removed: its guest drives it");
  assertEquals(
    refusalOf(await ask(app, "PUT", "/api/v1/programme", PROGRAMME)),
    "409 vfs: vf 1 cannot be removed: its guest drives it",
  );
  assertEquals((await ask(app, "PUT", "/api/v1/programme", { ...PROGRAMME, link: "sideways" })).body.field, "link");
});

Deno.test("a VF is held for as long as it is asked for, and taken back for a while or for good", async () => {
  const nic = new FakeNic();
  const app = nicApi(nic, NO_UPLINKS, undefined);
  assertEquals((await ask<HoldGrant>(app, "POST", "/api/v1/vfs/0/hold", { deadlineMs: 10_000 })).body.token, "token");
  await ask(app, "POST", "/api/v1/vfs/0/hold", {});
  assertEquals((await ask(app, "DELETE", "/api/v1/vfs/0/hold")).status, 200);
  assertEquals((await ask<TakenBack>(app, "DELETE", "/api/v1/vfs/0/lease")).body.unfetched, 3);
  await ask(app, "DELETE", "/api/v1/vfs/0/lease?final=true");
  assertEquals((await ask<LeaseView>(app, "GET", "/api/v1/vfs/0/lease")).body.driver, "nobody");
  assertEquals(nic.calls, [
    ["hold", 0, 10_000],
    ["hold", 0, 5000],
    ["release", 0],
    ["takeBack", 0, false],
    ["takeBack", 0, true],
    ["leaseOf", 0],
  ]);
  assertEquals((await ask(app, "POST", "/api/v1/vfs/0/hold", { deadlineMs: 30_001 })).body.field, "deadlineMs");
});

Deno.test("whatever is asked of a VF that is not there, or that is refused, has the NIC's name for it", async () => {
  const nic = new FakeNic();
  const app = nicApi(nic, NO_UPLINKS, undefined);
  const requests = [["POST", "hold", {}], ["DELETE", "hold"], ["DELETE", "lease"], ["GET", "lease"]] as const;
  for (const [method, what, body] of requests) {
    const refused = refusalOf(await ask(app, method, `/api/v1/vfs/7/${what}`, body));
    assertEquals(refused, "404 id (no-vf): vf 7 does not exist", `${method} ${what}`);
  }
  nic.trouble = new DeviceRefusal("held", "vf 0 is changing hands already: try again in a moment");
  for (const [method, what, body] of requests) {
    const refused = refusalOf(await ask(app, method, `/api/v1/vfs/0/${what}`, body));
    assertEquals(refused, "409 id (held): vf 0 is changing hands already: try again in a moment", `${method} ${what}`);
  }
});

Deno.test("a pool is given an uplink by its name, and a spec that cannot be is refused before anything is asked", async () => {
  const asked: unknown[] = [];
  const uplinks: UplinksPart = {
    states: () => ({}),
    set(pool, spec, keep) {
      asked.push([pool, spec, keep]);
      return Promise.resolve({ spec, state: "down", counters: {}, offloads: [] });
    },
  };
  const app = nicApi(new FakeNic(), uplinks, undefined);
  const spec = { kind: "tap", name: "rf0" };
  const put = (path: string, body: unknown) => ask<{ state: string }>(app, "PUT", `/api/v1/uplinks/${path}`, body);
  assertEquals((await put("uplink", spec)).body.state, "down");
  await put("pf", { kind: "none" });
  await put("12?keep=true", spec);
  assertEquals(asked, [["uplink", spec, false], ["pf", { kind: "none" }, false], [12, spec, true]]);
  for (const path of ["gateway", "-1"]) assertEquals((await put(path, spec)).status, 404);
  assertEquals((await put("uplink?keep=perhaps", spec)).status, 422);
  for (const body of [{ kind: "tap" }, { kind: "bridge", name: "rf0" }, { kind: "tap", name: "a name" }]) {
    assertEquals((await put("uplink", body)).status, 422);
  }
  assertEquals(asked.length, 3);
});

Deno.test("ports are captured by their names; what cannot be is refused, and a HEAD opens nothing", async () => {
  const nic = new FakeNic();
  const app = nicApi(nic, NO_UPLINKS, undefined);
  const path = "/api/v1/captures";
  const answer = await app.request(`${path}?ports=1,uplink&snap=128&filter=tcp&dropped=true`);
  assertEquals([answer.status, answer.headers.get("content-type")], [200, "application/x-pcapng"]);
  assertEquals(new Uint8Array(await answer.arrayBuffer()), pcapngHeader(["vf0"]));
  await (await app.request(path)).body?.cancel();
  assertEquals((await app.request(path, { method: "HEAD" })).status, 200);
  const [one, all] = nic.captured;
  assertEquals(one?.interfaces.map(({ name }) => name), ["vf1", "uplink"]);
  assertEquals([one?.snapBytes, one?.isDroppedOnly, (one?.filter.length ?? 0) > 0], [128, true, true]);
  assertEquals(all?.interfaces.map(({ name }) => name), ["vf0", "vf1", "pf", "uplink"]);
  assertEquals([all?.snapBytes, all?.isDroppedOnly, all?.filter.length], [262_144, false, 0]);
  assertEquals(nic.captured.length, 2);

  const refused = async (search: string) => refusalOf(await ask(app, "GET", path + search));
  assertEquals(await refused("?ports=2"), "404 ports: there is no vf 2");
  assertEquals((await refused("?filter=frob")).slice(0, 34), "422 filter: filter: at character 1");
  assertEquals((await refused("?snap=31")).slice(0, 9), "422 snap:");
  nic.trouble = new DeviceRefusal("capture-limit", "8 captures are open already: end one first");
  assertEquals(await refused(""), "503 (capture-limit): 8 captures are open already: end one first");
});
