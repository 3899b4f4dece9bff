/** A VF that several want: guests that keep it by other means than refusing, and owners of VFs that are not theirs now. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Bystanders } from "../support/bystanders.ts";
import { DirectGuest } from "../support/direct_guest.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, vringAddress } from "../support/front_end.ts";
import { ask, must, setMode } from "../support/guests.ts";
import { HostileGuest, shellAddress } from "../support/hostile_guest.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { createMemfd } from "../../shared/os/mod.ts";

const driverOf = async (fabric: TestFabric, vf: number) =>
  (await must(`${fabric.url("nic")}/api/v1/vfs/${vf}/lease`)).driver;
const put = (fabric: TestFabric, path: string, body: unknown) => ask(`${fabric.info.api}/api/v1/${path}`, "PUT", body);

/** A fabric with a hostile guest on a VF that it drives itself. */
async function withEvil(vfs: number, test: (fabric: TestFabric, evil: HostileGuest) => Promise<void>): Promise<void> {
  const address = shellAddress();
  await using fabric = await TestFabric.start(vfs, ["--shells", address]);
  await using evil = await HostileGuest.boot(fabric, "2", fabric.vf(2).socket, address);
  await setMode(fabric, 2, { mode: "passthrough", plugin: "advanced" });
  assertEquals(await driverOf(fabric, 2), "guest");
  evil.conduct = { givesBack: false };
  await test(fabric, evil);
}

for (const force of [false, true]) {
  const how = force ? { mode: "emulated", force } : { mode: "emulated" };
  const name = force ? "by force" : "when it was asked";
  Deno.test(`a guest that has put its rings nowhere loses its VF ${name}`, () =>
    withEvil(3, async (fabric, evil) => {
      await using bystanders = await Bystanders.attach(fabric);
      for (const index of [0, 1]) {
        evil.frontEnd.send("VHOST_USER_SET_VRING_ADDR", vringAddress(index, 1n << 60n, 1n << 60n, 1n << 60n));
      }
      assertEquals((await put(fabric, "vfs/2/mode", how)).status, 200);
      assert(await driverOf(fabric, 2) !== "guest");
      // Its rings wait for memory under them. When it goes another one can come.
      const { dataPath, session } = await must(`${fabric.url("vhost")}/api/v1/ports/2`);
      assertEquals([dataPath, session.vrings.some(({ running }: { running: boolean }) => running)], [
        "emulated",
        false,
      ]);
      evil.frontEnd.socket.close();
      await until("vhost to notice", async () => !(await must(`${fabric.url("vhost")}/api/v1/ports/2`)).connected);
      await using next = await FrontEnd.connect(fabric.vf(2).socket).start();
      void next;
      assertEquals(await driverOf(fabric, 2), "hypervisor");
      await bystanders.check();
    }));

  Deno.test(`a guest that has left vhost, and says that it is emulated, loses its VF ${name}`, () =>
    withEvil(3, async (fabric, evil) => {
      evil.conduct = { givesBack: false, answers: { "/api/v1/mode": () => undefined } };
      evil.mode = "emulated";
      evil.frontEnd.socket.close();
      await until("vhost to notice", async () => !(await must(`${fabric.url("vhost")}/api/v1/ports/2`)).connected);
      assertEquals((await put(fabric, "vfs/2/mode", how)).status, 200);
      assert(await driverOf(fabric, 2) !== "guest");
      await using next = await FrontEnd.connect(fabric.vf(2).socket).start();
      void next;
    }));
}

Deno.test("guests that map all they may leave room for holds, and lose their VFs all the same", () =>
  withEvil(3, async (fabric, evil) => {
    const mib = 1024 ** 2;
    await using first = await FrontEnd.connect(fabric.vf(0).socket, { bytes: 1400 * mib }).start();
    await using second = await FrontEnd.connect(fabric.vf(1).socket, { bytes: 1300 * mib }).start();
    void [first, second];
    // It fills what is left, until the NIC refuses the smallest piece.
    const device = evil.direct?.device;
    using file = createMemfd("filler", 512 * mib);
    let iova = 1n << 40n;
    let refusal: unknown;
    for (let size = 512 * mib; size >= 2 * mib; size /= 2) {
      refusal = undefined;
      while (refusal === undefined) {
        const region = { iova: iova += 1n << 32n, size, offset: 0 };
        await device?.request({ op: "dmaMap", region }, [file.number]).catch((error) => refusal = error);
      }
    }
    assert(refusal instanceof DeviceRefusal && refusal.code === "arena-share", String(refusal));
    await must(`${fabric.url("nic")}/api/v1/vfs/2/hold`, "POST", { deadlineMs: 1000 });
    for (const how of [{ mode: "emulated", force: true }, { mode: "emulated" }]) {
      assertEquals((await put(fabric, "vfs/2/mode", how)).status, 200);
      assert(await driverOf(fabric, 2) !== "guest");
    }
  }));

Deno.test("a guest that reports without end does not keep its operator out", () =>
  withEvil(3, async (fabric, evil) => {
    evil.conduct = { givesBack: false, answers: { "/api/v1/mode": () => undefined } };
    let reports = 0;
    let ended = false;
    const flood = (async () => {
      while (!ended) {
        evil.mode = reports % 2 === 0 ? "emulated" : "passthrough";
        if (reports % 3 === 0) evil.boot = crypto.randomUUID();
        await evil.report().catch(() => {});
        reports++;
      }
    })();
    await until("some reports", () => reports > 20);
    const answer = await put(fabric, "vfs/2/mode", { mode: "emulated", force: true });
    ended = true;
    await flood;
    // Its own report may have ended its driving a moment before.
    assert([200, 409].includes(answer.status), JSON.stringify(answer.body));
    assert(answer.status === 200 || answer.body.reason === "incompatible-mode", JSON.stringify(answer.body));
    assert(await driverOf(fabric, 2) !== "guest");
  }));

Deno.test("force does not wait for a change whose guest takes its time", () =>
  withEvil(3, async (fabric, evil) => {
    const quiesced = Promise.withResolvers<void>();
    const never = () => {
      quiesced.resolve();
      return undefined;
    };
    evil.conduct = { givesBack: false, answers: { "/api/v1/plugin": never, "/api/v1/path/quiesce": never } };
    const slow = put(fabric, "vfs/2/mode", { mode: "passthrough", plugin: "virtio" });
    await quiesced.promise;
    assertEquals((await put(fabric, "vfs/2/mode", { mode: "emulated" })).body.reason, "operation-in-progress");
    assertEquals((await put(fabric, "vfs/2/mode", { mode: "emulated", force: true })).status, 200);
    assertEquals((await slow).body.reason, "taken-by-force");
    assertEquals(await driverOf(fabric, 2), "hypervisor");
  }));

Deno.test("a hold that somebody has left behind does not keep a guest on its VF", () =>
  withEvil(3, async (fabric) => {
    await must(`${fabric.url("nic")}/api/v1/vfs/2/hold`, "POST", { deadlineMs: 30_000 });
    assertEquals((await put(fabric, "vfs/2/mode", { mode: "emulated", force: true })).status, 200);
    assertEquals((await must(`${fabric.url("nic")}/api/v1/state`)).vfs[2].held, false);
  }));

Deno.test("a VF that is allotted is driven by its vport's guest alone; what is held for that guest is nobody else's", async () => {
  const address = shellAddress();
  await using fabric = await TestFabric.start(1, ["--shells", address]);
  const api = `${fabric.info.api}/api/v1`;
  const { id, socket } = await must(`${api}/vports`, "POST", { vlan: 100 });
  await fabric.patch(0, { vlan: 200 });
  // Whoever is connected to a VF's own socket, the VF is not free.
  {
    await using own = await FrontEnd.connect(fabric.vf(0).socket).start();
    void own;
    await using evil = await HostileGuest.boot(fabric, `vport${id}`, socket, address);
    void evil;
    const refused = await put(fabric, `vports/${id}/mode`, { mode: "passthrough" });
    assertEquals([refused.status, refused.body.reason], [409, "no-vf-left"]);
  }
  await using evil = await HostileGuest.boot(fabric, `vport${id}`, socket, address);
  void evil;
  assertEquals((await put(fabric, `vports/${id}/mode`, { mode: "passthrough" })).status, 200);
  // A front-end on the VF's own socket does not get it, between two of the guest's leases either.
  for (const leave of [() => Promise.resolve(), () => must(`${fabric.url("nic")}/api/v1/vfs/0/lease`, "DELETE")]) {
    await leave();
    const own = FrontEnd.connect(fabric.vf(0).socket);
    await assertRejects(() => own.start());
    await own[Symbol.asyncDispose]();
  }
  for (const how of [{ mode: "emulated", force: true }, { mode: "emulated" }, { mode: "passthrough" }]) {
    const refused = await put(fabric, "vfs/0/mode", how);
    assertEquals([refused.status, refused.body.reason], [409, "vf-allotted"]);
  }
  // Frames that are held for VLAN 100 when the VF is returned do not reach the next guest, of VLAN 200.
  await must(`${fabric.url("nic")}/api/v1/vfs/0/hold`, "POST", { deadlineMs: 30_000 });
  await must(`${api}/vports/${id}/vf`, "DELETE");
  assertEquals((await must(`${fabric.url("nic")}/api/v1/state`)).vfs[0].held, false);
  await using next = await DirectGuest.attach(fabric, 0);
  next.guest.fill(8);
  next.guest.send([frame({ dst: "ff:ff:ff:ff:ff:ff", src: fabric.vf(0).mac })]);
  next.signal();
  await until("its own frame to be sent", () => next.guest.unsent() === 0);
  assertEquals(next.guest.receive(), []);
});

Deno.test("a guest that has given its VF back does not keep its connection", async () => {
  await using fabric = await TestFabric.start(1);
  await using guest = await DirectGuest.attach(fabric, 0);
  await guest.device.request({ op: "detach" });
  await guest.device.closed;
});
