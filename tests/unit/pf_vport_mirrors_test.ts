/** Mirrors of guests without a VF: which there may be, who is told of them, and what they keep from happening. */
import "../support/quiet.ts";
import { assertEquals } from "@std/assert";
import type { VportView } from "../../shared/api/mod.ts";
import { refusalOf } from "../support/app.ts";
import { TestPf } from "../support/test_pf.ts";

/** A PF with `count` vports and three VFs. */
async function withVports(count: number): Promise<TestPf> {
  const pf = await TestPf.start(3);
  for (let id = 0; id < count; id++) await pf.addVport();
  return pf;
}

Deno.test("a vport's mirror names another vport, and is the software switch's alone", async () => {
  await using pf = await withVports(3);
  assertEquals((await pf.get<VportView>("vports/0")).mirror, null);
  assertEquals((await pf.set<VportView>("vports/0", { mirror: "both:vport2" })).mirror, "both:vport2");
  assertEquals((await pf.addVport({ mirror: "in:vport0" })).mirror, "in:vport0");
  assertEquals(pf.software.programmes.at(-1)?.vports.map(({ mirror }) => mirror), [
    "both:vport2",
    null,
    null,
    "in:vport0",
  ]);
  assertEquals(pf.nic.programmes.at(-1)?.vfs.map(({ mirror }) => mirror), [null, null, null]);
});

Deno.test("what a vport's mirror cannot be is refused, with what it can be", async () => {
  await using pf = await withVports(2);
  const refused = async (mirror: unknown) => refusalOf(await pf.patch("vports/1", { mirror }));
  assertEquals(await refused("both:vport1"), "422 mirror: cannot mirror vport 1 to itself");
  assertEquals(await refused("both:vport5"), "422 mirror: cannot mirror vport 1 to vport 5: there is none");
  const words =
    "422 mirror: mirror: is such as both:vport3, in:vport3 or out:vport3, or null: copies go to another vport";
  for (const mirror of ["both:0", "out:uplink", "vport0", "both:vport", { to: 0 }]) {
    assertEquals(await refused(mirror), words, JSON.stringify(mirror));
  }
  assertEquals(
    refusalOf(await pf.patch("vfs/0", { mirror: "both:vport1" })),
    "422 mirror: mirror: is such as both:3, in:3 or out:uplink, or null",
  );
  assertEquals((await pf.get<VportView>("vports/1")).mirror, null);
});

Deno.test("a mirror keeps its vports at the software switch, and its target in being", async () => {
  await using pf = await withVports(3);
  await pf.set("vports/0", { mirror: "out:vport1" });
  const why = "vport 0 has the mirror out:vport1, which stays with the software switch; " +
    "take it away first (fabric vport set 0 mirror none)";
  for (const id of [0, 1]) {
    assertEquals(
      refusalOf(await pf.ask("POST", `vports/${id}/vf`, {})),
      `409 mode (mirrored): vport ${id} cannot be allotted a VF: ${why}`,
    );
  }
  assertEquals(pf.nic.takenBack, []);
  assertEquals(
    refusalOf(await pf.ask("DELETE", "vports/1")),
    "409 id: vport 1 cannot be removed: vport 0 is mirrored to it; set mirror first (fabric vport set 0 mirror none)",
  );
  // Whoever has a VF has gone from the switch.
  assertEquals((await pf.ask("POST", "vports/2/vf", {})).status, 200);
  const gone = "vport 2 has vf 2, past the software switch; put its guest into emulated mode first " +
    "(fabric vport mode 2 emulated)";
  for (const [id, mirror] of [[0, "both:vport2"], [2, "both:vport0"]] as const) {
    const to = mirror.slice(-1);
    assertEquals(
      refusalOf(await pf.patch(`vports/${id}`, { mirror })),
      `409 mirror (vf-allotted): cannot mirror vport ${id} to vport ${to}: ${gone}`,
    );
  }
  await pf.set("vports/0", { mirror: null });
  assertEquals((await pf.ask("POST", "vports/1/vf", {})).status, 200);
  assertEquals((await pf.ask("DELETE", "vports/0")).status, 200);
});

Deno.test("mirrors of vports and of the PF's pool are kept over a restart of the PF", async () => {
  const path = await Deno.makeTempFile();
  try {
    {
      await using pf = await TestPf.start(2, path);
      await pf.addVport();
      await pf.addVport({ mirror: "in:vport0" });
      await pf.set("nic", { pfMirror: "out:1" });
    }
    await using again = await TestPf.start(2, path);
    assertEquals(again.software.programmes.at(-1)?.vports.map(({ mirror }) => mirror), [null, "in:vport0"]);
    assertEquals(again.nic.programmes.at(-1)?.pfMirror, "out:1");
  } finally {
    await Deno.remove(path);
  }
});
