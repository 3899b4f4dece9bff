/** The address that a VF gets when its guest, which is moved to another host, stands still; and what a PF's death leaves. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import type { Filter, Problem, Vf } from "../../shared/api/mod.ts";
import { settled, withPair } from "../../services/pf/paused_address_rules.ts";
import { Store } from "../../services/pf/store.ts";
import { TestPf } from "../support/test_pf.ts";
import { until } from "../support/wait.ts";

const OTHER = "02:00:00:00:77:01";
const LONG_MS = 30_000;

/** Sets what vf 0 gets, and answers the status. */
async function arm(pf: TestPf, forMs = LONG_MS, mac = OTHER): Promise<number> {
  return (await pf.ask("PUT", "vfs/0/pausedAddress", { mac, macFixed: true, forMs })).status;
}

async function macOf(pf: TestPf): Promise<string> {
  return (await pf.get<Vf>("vfs/0")).mac;
}

/** The guest of vf 0 stands still; resolves when the PF has done what that asks for. */
async function pause(pf: TestPf): Promise<void> {
  pf.software.tell({ type: "guest-paused", port: 0 });
  // Changes take turns.
  await pf.set("vfs/1", { vlan: ++vlan });
}
let vlan = 0;

/** Runs `use` with the path of a database. */
async function withDatabase(use: (path: string) => Promise<void>): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  await use(`${dir}/pf.sqlite`).finally(() => Deno.remove(dir, { recursive: true }));
}

Deno.test("a guest stands still: its VF gets the other address at once, once, and only while somebody says so", async () => {
  await using pf = await TestPf.start(2);
  const own = await macOf(pf);
  await pause(pf);
  assertEquals(await macOf(pf), own, "nobody has said anything");
  assertEquals([await arm(pf), await macOf(pf)], [204, own]);
  pf.events.length = 0;
  const programmes = pf.nic.programmes.length;
  await pause(pf);
  assertEquals(pf.nic.programmes[programmes]?.vfs[0]?.mac, OTHER);
  assertEquals(pf.events.slice(0, 2), [
    { type: "guest-paused", vf: 0 },
    { type: "vf-changed", vf: 0, changes: { mac: OTHER, macFixed: true } },
  ]);
  await pf.set("vfs/0", { mac: own });
  await pause(pf);
  assertEquals(await macOf(pf), OTHER, "it has gone on here, and stands still again");
  await pf.set("vfs/0", { mac: own });
  assertEquals((await pf.ask("DELETE", "vfs/0/pausedAddress")).status, 204);
  await pause(pf);
  assertEquals(await macOf(pf), own);
});

Deno.test("whoever moves a guest and is not heard of any more is forgotten", async () => {
  await withDatabase(async (path) => {
    {
      await using pf = await TestPf.start(2, path);
      await arm(pf, 1);
      await until("it to be forgotten", () => Object.keys(pf.fabric.settings.pausedAddresses).length === 0);
      const own = await macOf(pf);
      await pause(pf);
      assertEquals(await macOf(pf), own);
    }
    using store = new Store(path, "test", 2);
    assertEquals(store.load().pausedAddresses, {});
  });
});

Deno.test("an address that the VF may not have, or that the NIC does not take, is not its address", async () => {
  await using pf = await TestPf.start(2);
  const [own, others] = [await macOf(pf), (await pf.get<Vf>("vfs/1")).mac];
  const put = (body: unknown) => pf.ask<Problem>("PUT", "vfs/0/pausedAddress", body);
  assertEquals((await put({ mac: others, macFixed: true, forMs: 100 })).status, 409);
  assertEquals((await put({ mac: OTHER, macFixed: true, forMs: 0 })).body.field, "forMs");
  assertEquals((await pf.ask("PUT", "vfs/9/pausedAddress", { mac: OTHER, macFixed: true, forMs: 1 })).status, 404);
  await arm(pf);
  pf.nic.refusals.push(new Error("it does not"));
  await pause(pf);
  assertEquals([await macOf(pf), pf.nic.programmes.at(-1)?.vfs[0]?.mac], [own, own]);
});

Deno.test("a PF dies while a guest is moved: the VF has the address that its NIC has; without that the other one", async () => {
  await withDatabase(async (path) => {
    {
      await using pf = await TestPf.start(2, path);
      await arm(pf);
      pf.software.tell({ type: "guest-paused", port: 0 });
      await until("the address", async () => await macOf(pf) === OTHER);
    }
    {
      using store = new Store(path, "test", 2);
      const kept = store.load();
      const { from, to } = kept.pausedAddresses[0] ?? {};
      assertEquals([kept.vfs[0]?.mac, to?.mac], [from?.mac, OTHER], "what happened is not on disk, what might is");
      const filter = { mac: from?.mac ?? "", vlan: 0, proto: "802.1Q", ageSeconds: 0 } as const;
      const macWith = (...filters: Filter[]) => settled(kept, filters).vfs[0]?.mac;
      assertEquals(macWith({ ...filter, pool: 0, source: "static" }), from?.mac);
      assertEquals(macWith({ ...filter, pool: "uplink", source: "learned" }), OTHER);
      const set = { ...kept, vfs: kept.vfs.map((vf) => ({ ...vf, mac: "02:00:00:00:99:99" })) };
      assertEquals(settled(set, []).vfs, set.vfs, "an operator has set another one");
      assertEquals(withPair(kept, 0, undefined).pausedAddresses, {});
    }
    {
      await using again = await TestPf.start(2, path);
      assertEquals([await macOf(again), again.nic.programmes[0]?.vfs[0]?.mac], [OTHER, OTHER]);
    }
    using store = new Store(path, "test", 2);
    assertEquals([store.load().vfs[0]?.mac, store.load().pausedAddresses], [OTHER, {}]);
  });
});
