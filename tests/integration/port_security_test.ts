/** Port security on real guests: in force in every mode, on VFs and on vports, and taken back again. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { MODES, must, setMode, TestGuest } from "../support/guests.ts";

Deno.test("guests send from the addresses that they may use, in every mode, on a VF and on a vport", async (t) => {
  await using fabric = await TestFabric.start(1, ["--guests", "2"]);
  const [onVf, onVport] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const vport = (patch: unknown) => must(`${fabric.info.api}/api/v1/vports/0`, "PATCH", patch);
  const answers = async (from: TestGuest, to: TestGuest) =>
    (await from.ping(to.ip, 3, { intervalMs: 20, timeoutMs: 500 })).received;
  for (const [name, mode] of Object.entries(MODES)) {
    await t.step(name, async () => {
      await setMode(fabric, 0, mode);
      assertEquals(await answers(onVf, onVport), 3);
      const before = (await fabric.counters(0)).tx_ip_spoofed ?? 0;
      await fabric.patch(0, { allowedIps: ["10.0.0.99", "fe80::/10"] });
      assertEquals(await answers(onVf, onVport), 0);
      assert(((await fabric.counters(0)).tx_ip_spoofed ?? 0) > before, "what is dropped is counted");
      await fabric.patch(0, { allowedIps: [onVf.ip] });
      assertEquals(await answers(onVf, onVport), 3);
      await fabric.patch(0, { allowedIps: [] });
    });
  }
  await t.step("a vport's, on the software switch", async () => {
    await vport({ allowedIps: ["10.0.0.99"] });
    assertEquals(await answers(onVport, onVf), 0);
    assert((await fabric.get("/api/v1/vports/0")).counters.tx_ip_spoofed > 0);
    await vport({ allowedIps: ["10.0.0.0/16"] });
    assertEquals(await answers(onVport, onVf), 3);
  });
  await t.step("the native VLAN of a vport is the VLAN of a VF", async () => {
    await fabric.patch(0, { vlan: 7 });
    assertEquals(await answers(onVport, onVf), 0);
    await vport({ nativeVlan: 7 });
    assertEquals(await answers(onVport, onVf), 3);
  });
});
