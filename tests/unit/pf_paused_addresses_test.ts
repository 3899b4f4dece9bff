/** The address that a VF gets when its guest, which is moved to another host, stands still; and what a PF's death leaves. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import type { Filter, Problem, Vf } from "../../shared/api/mod.ts";
import { settled, withPair } from "../../services/pf/paused_address_rules.ts";
import { Store } from "../../services/pf/store.ts";
import { TestPf } from "../support/test_pf.ts";
import { until } from "../support/wait.ts";

const OTHER = "02:00:00:00:77:01";

/** Somebody who moves the guest of vf 0, until `leave`. */
interface Mover {
  status: number;
  heard: string[];
  leave(): Promise<void>;
}

/** Says what vf 0 gets. It holds when this resolves. */
async function move(pf: TestPf, mac = OTHER): Promise<Mover> {
  const response = await pf.app.request("/api/v1/vfs/0/pausedAddress", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ mac, macFixed: true }),
  });
  const heard: string[] = [];
  if (!response.ok || !response.body) {
    await response.body?.cancel();
    return { status: response.status, heard, leave: () => Promise.resolve() };
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const reading = (async () => {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      heard.push(...[...part.value.matchAll(/"type":"(\w+)"/g)].map(([, type]) => type as string));
    }
  })();
  const leave = async () => {
    await reader.cancel();
    await reading;
  };
  return { status: response.status, heard, leave };
}

/** Resolves when nobody moves a guest any more, on disk too. */
async function forgotten(pf: TestPf): Promise<void> {
  await until("it to be forgotten", () => Object.keys(pf.store.load().pausedAddresses).length === 0);
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

Deno.test("a guest stands still: its VF gets the other address at once, as long as somebody who moves it is there", async () => {
  await using pf = await TestPf.start(2);
  const own = await macOf(pf);
  await pause(pf);
  assertEquals(await macOf(pf), own, "nobody moves it");
  const mover = await move(pf);
  assertEquals([mover.status, await macOf(pf)], [200, own]);
  pf.events.length = 0;
  const programmes = pf.nic.programmes.length;
  await pause(pf);
  assertEquals(pf.nic.programmes[programmes]?.vfs[0]?.mac, OTHER);
  assertEquals(pf.events.slice(0, 2), [
    { type: "guest-paused", vf: 0 },
    { type: "vf-changed", vf: 0, changes: { mac: OTHER, macFixed: true } },
  ]);
  await until("the mover to be told", () => mover.heard.length === 2);
  assertEquals(mover.heard, ["paused", "given"]);
  for (const again of [own, "02:00:00:00:77:02"]) {
    await pf.set("vfs/0", { mac: again, macFixed: false });
    pf.software.tell({ type: "guest-paused", port: 0 });
    await until("it, which has gone on here, to stand still again", async () => await macOf(pf) === OTHER);
    await until("it to be on disk", () => pf.store.load().vfs[0]?.mac === OTHER);
  }
  await pf.set("vfs/0", { mac: own });
  await mover.leave();
  await forgotten(pf);
  await pause(pf);
  assertEquals(await macOf(pf), own);
});

Deno.test("one mover that was cut off is back before its first connection ends; another one is refused", async () => {
  await using pf = await TestPf.start(2);
  const own = await macOf(pf);
  const first = await move(pf);
  const again = await move(pf);
  assertEquals([again.status, (await move(pf, "02:00:00:00:77:02")).status], [200, 409]);
  await first.leave();
  await pause(pf);
  assertEquals(await macOf(pf), OTHER);
  await pf.set("vfs/0", { mac: own });
  await again.leave();
  await forgotten(pf);
  assertEquals((await move(pf, "02:00:00:00:77:02")).status, 200);
});

Deno.test("an address that the VF may not have, or that the NIC does not take, is not its address", async () => {
  await using pf = await TestPf.start(2);
  const [own, others] = [await macOf(pf), (await pf.get<Vf>("vfs/1")).mac];
  const post = (vf: number, body: unknown) => pf.ask<Problem>("POST", `vfs/${vf}/pausedAddress`, body);
  assertEquals((await move(pf, others)).status, 409);
  assertEquals((await post(0, { mac: "02:00", macFixed: true })).body.field, "mac");
  assertEquals((await post(9, { mac: OTHER, macFixed: true })).status, 404);
  const mover = await move(pf);
  pf.nic.refusals.push(new Error("it does not"), new Error("it does not"));
  await pause(pf);
  assertEquals([await macOf(pf), pf.nic.programmes.at(-1)?.vfs[0]?.mac, mover.heard], [own, own, ["paused"]]);
});

Deno.test("a PF dies while a guest is moved: the VF has the other address if that is written, or if the NIC has it", async () => {
  await withDatabase(async (path) => {
    let own: string;
    {
      await using pf = await TestPf.start(2, path);
      own = await macOf(pf);
      await move(pf);
      for (const part of ["", "-wal"]) await Deno.copyFile(path + part, `${path}.moving${part}`);
      await pause(pf);
      await forgotten(pf);
    }
    {
      using store = new Store(path, "test", 2);
      assertEquals([store.load().vfs[0]?.mac, store.load().pausedAddresses], [OTHER, {}]);
    }
    {
      using store = new Store(`${path}.moving`, "test", 2);
      const kept = store.load();
      const { from, to } = kept.pausedAddresses[0] ?? {};
      assertEquals([kept.vfs[0]?.mac, from?.mac, to?.mac], [own, own, OTHER]);
      const filter = { mac: OTHER, vlan: 0, proto: "802.1Q", ageSeconds: 0 } as const;
      const macWith = (...filters: Filter[]) => settled(kept, filters).vfs[0]?.mac;
      assertEquals(macWith({ ...filter, pool: 0, source: "static" }), OTHER);
      assertEquals(macWith({ ...filter, pool: "uplink", source: "learned" }), own);
      const both = [{ ...filter, pool: 0, source: "static" }, {
        ...filter,
        mac: own,
        pool: 0,
        source: "static",
      }] as const;
      assertEquals(macWith(...both), own, "the other one is one of its allowedMacs");
      for (const written of ["02:00:00:00:99:99", OTHER]) {
        const set = { ...kept, vfs: kept.vfs.map((vf) => ({ ...vf, mac: written })) };
        assertEquals(settled(set, [both[0]]).vfs, set.vfs, "an operator has set one, or it is written");
        assertEquals(settled(set, []).vfs, set.vfs, "with a new NIC too");
      }
      assertEquals(withPair(kept, 0, undefined).pausedAddresses, {});
    }
    await using again = await TestPf.start(2, `${path}.moving`);
    assertEquals([await macOf(again), again.nic.programmes[0]?.vfs[0]?.mac], [own, own], "its NIC has nothing");
    await forgotten(again);
  });
});
