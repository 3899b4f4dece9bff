/** Guests without a VF, on the software switch behind the PF's pool; and guests' wishes for their interface. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { socketPath } from "../../shared/api/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { ask, checkedStream, MODES, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { BROADCAST, frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";

const GROUP = "01:00:5e:00:00:fb";
const OTHER_GROUP = "01:00:5e:01:10:01";

Deno.test("guests with and without a VF reach each other; a VLAN keeps them apart and brings them together", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "4"]);
  const [a, b, c, d] = [0, 1, 2, 3].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest, TestGuest];
  const { api } = fabric.info;
  for (const [name, mode] of Object.entries(MODES)) {
    await setMode(fabric, 0, mode);
    for (const [from, to] of [[a, c], [c, a], [c, d], [b, d]] as const) {
      assertEquals((await from.ping(to.ip, 2)).received, 2, `${name}: ${from.ip} to ${to.ip}`);
    }
    await checkedStream(a, c, { rate: 10_000, size: 200, count: 2000 });
    await checkedStream(c, a, { rate: 10_000, size: 1514, count: 2000 });
    await checkedStream(c, d, { rate: 10_000, size: 300, count: 2000 });
  }
  await must(`${api}/api/v1/vports/0`, "PATCH", { vlan: 100 });
  assertEquals((await c.ping(d.ip, 2, { timeoutMs: 200 })).received, 0);
  assertEquals((await c.ping(a.ip, 2, { timeoutMs: 200 })).received, 0);
  await fabric.patch(0, { vlan: 100 });
  await c.reaches(a.ip);
  await checkedStream(a, c, { rate: 10_000, count: 2000 });
  assertEquals((await a.ping(d.ip, 2, { timeoutMs: 200 })).received, 0);
  assertEquals((await b.ping(d.ip, 2)).received, 2);
  const vports = await must(`${api}/api/v1/vports`);
  assertEquals(
    vports.map(({ id, vlan, attached }: { id: number; vlan: number; attached: boolean }) => [id, vlan, attached]),
    [
      [0, 100, true],
      [1, 0, true],
    ],
  );
  const filters = await must(`${api}/api/v1/filters`);
  assertEquals(
    filters.filter(({ pool, source }: { pool: string; source: string }) => pool === "pf" && source === "static").length,
    3,
  );
});

Deno.test("a guest without a VF is allotted one, drives it, and gives it back, under a checked stream", async () => {
  await using fabric = await TestFabric.start(3, ["--guests", "5"]);
  const [a, c, d] = [0, 3, 4].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest];
  const { api } = fabric.info;
  const mode = (vport: number, body: unknown) => ask(`${api}/api/v1/vports/${vport}/mode`, "PUT", body);
  // Three VFs, three guests on them: none is left.
  const refused = await mode(0, { mode: "passthrough" });
  assertEquals([refused.status, refused.body.reason], [409, "no-vf-left"]);
  assertEquals((await c.ping(a.ip, 2)).received, 2);
  await must(`${api}/api/v1/nic`, "PATCH", { numVfs: 4 });
  await must(`${api}/api/v1/vports/0`, "PATCH", { vlan: 50 });
  await fabric.patch(0, { vlan: 50 });
  await c.reaches(a.ip);
  const streams = [
    await Stream.start(a, c, { rate: 5000, size: 128 }),
    await Stream.start(c, a, { rate: 5000, size: 200 }),
  ];
  for (let i = 0; i < 6; i++) {
    const plugin = i % 2 === 0 ? "advanced" : "virtio";
    const there = await mode(0, { mode: "passthrough", plugin });
    assertEquals([there.status, there.body.plugin], [200, plugin], JSON.stringify(there.body));
    assertEquals((await must(`${api}/api/v1/vports/0`)).vf, 3);
    const vf = await must(`${api}/api/v1/vfs/3`);
    assertEquals([vf.vport, vf.attached, vf.plugin], [0, true, `${plugin} 1.0.0`]);
    assertEquals((await c.ping(a.ip, 2)).received, 2);
    const second = await mode(1, { mode: "passthrough" });
    assertEquals(second.body.reason, "no-vf-left");
    assertEquals((await ask(`${api}/api/v1/vfs/3`, "PATCH", { vlan: 1 })).body.reason, "vf-allotted");
    const back = await mode(0, { mode: "emulated" });
    assertEquals(back.status, 200, JSON.stringify(back.body));
    assertEquals((await must(`${api}/api/v1/vports/0`)).vf, null);
    assertEquals((await c.ping(a.ip, 2)).received, 2);
  }
  for (const stream of streams) await stream.end();
  // Its neighbour on the switch finds it by way of the NIC, in the same VLAN.
  await must(`${api}/api/v1/vports/1`, "PATCH", { vlan: 50 });
  await mode(0, { mode: "passthrough" });
  await d.reaches(c.ip);
  await mode(0, { mode: "emulated" });
  await d.reaches(c.ip);
});

Deno.test("vports: made, changed, removed; what cannot be is refused; they outlive the PF and the vhost service", async () => {
  await using fabric = await TestFabric.start(1);
  const vports = `${fabric.info.api}/api/v1/vports`;
  assertEquals(await must(vports), []);
  const made = await must(vports, "POST", { vlan: 7 });
  assertEquals([made.id, made.vlan, made.spoofCheck, made.trust], [0, 7, true, false]);
  await must(vports, "POST", { id: 5, mac: "02:00:00:00:00:55" });
  const cases: [string, string, unknown, number, string][] = [
    ["POST", "", { id: 5 }, 409, "id"],
    ["POST", "", { id: 500 }, 422, "id"],
    ["POST", "", { mac: "02:00:00:00:00:55" }, 409, "mac"],
    ["POST", "", { hardware: "advanced" }, 422, "hardware"],
    ["PATCH", "/5", { vlan: 4095 }, 422, "vlan"],
    ["PATCH", "/5", { promisc: true }, 422, "promisc"],
    ["PATCH", "/5", { mac: fabric.vf(0).mac }, 409, "mac"],
    ["PATCH", "/9", { vlan: 1 }, 404, "id"],
    ["DELETE", "/9", undefined, 404, "id"],
  ];
  for (const [method, path, body, status, field] of cases) {
    const answer = await ask(vports + path, method, body);
    assertEquals(
      [answer.status, answer.body.field],
      [status, field],
      `${method} ${path}: ${JSON.stringify(answer.body)}`,
    );
  }
  for (const name of ["pf", "vhost"]) {
    Deno.kill(fabric.pid(name), "SIGKILL");
    await until(`the vports after ${name}'s death`, async () => {
      const there = await ask(`${fabric.url("vhost")}/api/v1/vports`).catch(() => undefined);
      const known = await ask(vports).catch(() => undefined);
      return there?.body?.length === 2 && known?.body?.length === 2;
    });
  }
  await using front = await FrontEnd.connect(socketPath(fabric.runDir, "vport5")).start();
  await until("the guest to be attached", async () => (await must(`${vports}/5`)).attached);
  void front;
  await must(`${vports}/0`, "DELETE");
  assertEquals((await must(vports)).map(({ id }: { id: number }) => id), [5]);
});

Deno.test("the software switch: spoofed sources are dropped, unknown ones learned only without the spoof check", async () => {
  await using fabric = await TestFabric.start(1);
  const vports = `${fabric.info.api}/api/v1/vports`;
  const [x, y] = [await must(vports, "POST", {}), await must(vports, "POST", {})];
  await until("the sockets", () =>
    [x, y].every(({ socket }) => {
      try {
        return Deno.statSync(socket).isSocket;
      } catch {
        return false;
      }
    }));
  await using left = await FrontEnd.connect(x.socket).start();
  await using right = await FrontEnd.connect(y.socket).start();
  await using vf = await FrontEnd.connect(fabric.vf(0).socket).start();
  const all = [left, right, vf];
  for (const { guest } of all) guest.fill(48);
  const counters = async (id: number) => (await must(`${vports}/${id}`)).counters;
  const send = async (from: FrontEnd, bytes: Uint8Array) => {
    from.guest.send([bytes]);
    from.kick();
    await until("the frame to be taken", () => from.guest.unsent() === 0);
  };
  const alien = "02:aa:bb:cc:dd:01";
  await send(left, frame({ dst: y.mac, src: alien }));
  await until("the drop to be counted", async () => (await counters(0)).tx_spoofed === 1);
  assertEquals(right.guest.receive(), []);
  // Trusted and unchecked: what the guest uses is learned here and in the NIC, so answers find their way.
  await must(`${vports}/0`, "PATCH", { trust: true, spoofCheck: false });
  const hello = frame({ dst: BROADCAST, src: alien, bytes: 100 });
  await send(left, hello);
  for (const { guest } of [right, vf]) await until("the broadcast", () => guest.receive().length === 1);
  for (const from of [right, vf]) {
    const answer = frame({ dst: alien, src: from === right ? y.mac : fabric.vf(0).mac, bytes: 80 });
    await send(from, answer);
    const got: Uint8Array[] = [];
    await until("the answer", () => {
      got.push(...left.guest.receive());
      return got.length === 1;
    });
    assertEquals(got, [answer]);
  }
});

Deno.test("a guest's wishes go to the PF: granted and in force in every mode, or refused with a reason", async (t) => {
  await using fabric = await TestFabric.start(3, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const wish = (patch: unknown) => ask(`${a.api}/api/v1/link`, "PATCH", patch);
  await using sender = await FrontEnd.connect(fabric.vf(2).socket).start();
  const counters = async () => (await must(`${a.api}/api/v1/stats`)).counters as Record<string, number>;
  /** Whether the guest hears a frame for `dst`: one for the guest itself goes behind it, which counts as bad. */
  const hears = async (dst: string) => {
    const { mac } = await must(`${a.api}/api/v1/link`);
    const before = await counters();
    const src = fabric.vf(2).mac;
    sender.guest.send([
      frame({ dst, src, bytes: 90, etherType: 0x88b5 }),
      frame({ dst: mac, src, bytes: 60, etherType: 0x0800 }),
    ]);
    sender.kick();
    const after = await until("the frame behind it", async () => {
      const now = await counters();
      return now.rx_bad !== before.rx_bad && now;
    });
    return after.rx_not_mine !== before.rx_not_mine;
  };
  const heard = async () => ({
    group: await hears(GROUP),
    other: await hears(OTHER_GROUP),
    stranger: await hears("02:00:00:00:99:99"),
  });
  for (const [name, mode] of Object.entries(MODES)) {
    await t.step(name, async () => {
      await setMode(fabric, 0, mode);
      await fabric.patch(0, {
        macFixed: false,
        trust: false,
        vlan: 0,
        trunk: [],
        multicast: "all",
        guestMulticast: null,
      });
      // An address that nobody has fixed: the guest may have another, and filter and spoof check follow.
      const mac = `02:00:00:00:77:0${Object.keys(MODES).indexOf(name)}`;
      assertEquals((await wish({ mac })).body.mac, mac);
      assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0`)).mac, mac);
      assertEquals((await a.ping(b.ip, 2)).received, 2);
      assertEquals((await wish({ mac: fabric.vf(1).mac })).body.field, "mac");
      // The PF sets one: now it is the PF's, and the guest has it at once.
      await fabric.patch(0, { mac: fabric.vf(0).mac });
      await until(
        "the guest to have the address that the PF has set",
        async () => (await must(`${a.api}/api/v1/link`)).mac === fabric.vf(0).mac,
      );
      assertEquals((await a.ping(b.ip, 2)).received, 2);
      const refused = await wish({ mac });
      assertEquals([refused.status, refused.body.field, refused.body.reason], [409, "mac", "mac-fixed"]);
      assertStringIncludes(refused.body.detail, fabric.vf(0).mac);
      await fabric.patch(0, { trust: true });
      assertEquals((await wish({ mac })).status, 200);
      await fabric.patch(0, { trust: false });
      assertEquals((await a.ping(b.ip, 2)).received, 2);

      // The address that the next VF is to begin with.
      const next = fabric.vf(1).mac.replace(/01$/, "02");
      await fabric.patch(0, { macFixed: false });
      assertStringIncludes((await wish({ mac: next })).body.detail, "kept for vf 2");

      // VLANs: of the trunk list, or with trust.
      assertEquals((await wish({ vlan: 30 })).body.reason, "vlan-not-allowed");
      await fabric.patch(0, { trunk: [30] });
      await fabric.patch(1, { vlan: 30 });
      assertEquals((await wish({ vlan: 30 })).body.vlan, 30);
      await a.reaches(b.ip);
      assertEquals((await wish({ vlan: 0 })).status, 200);
      await fabric.patch(1, { vlan: 0 });
      await a.reaches(b.ip);
      await fabric.patch(0, { vlan: 9 });
      assertEquals((await wish({ vlan: 30 })).body.reason, "vlan-fixed");
      await fabric.patch(0, { vlan: 0 });

      // Promiscuous and multicast reception.
      assertEquals((await wish({ promisc: true })).body.reason, "not-trusted");
      assertEquals(await heard(), { group: true, other: true, stranger: false });
      assertEquals((await wish({ multicast: [GROUP] })).body.multicast, [GROUP]);
      assertEquals(await heard(), { group: true, other: false, stranger: false });
      // Other groups, or all of them again: the PF allows all.
      assertEquals((await wish({ multicast: "none" })).body.multicast, "none");
      assertEquals(await heard(), { group: false, other: false, stranger: false });
      assertEquals((await wish({ multicast: "all" })).body.multicast, "all");
      assertEquals(await heard(), { group: true, other: true, stranger: false });
      // The PF allows one.
      await fabric.patch(0, { multicast: [GROUP] });
      assertEquals(await heard(), { group: true, other: false, stranger: false });
      assertEquals((await wish({ multicast: "all" })).body.reason, "not-trusted");
      assertEquals((await wish({ multicast: [GROUP, OTHER_GROUP] })).body.reason, "not-trusted");
      assertEquals((await wish({ multicast: [GROUP] })).body.multicast, [GROUP]);
      await fabric.patch(0, { trust: true });
      const granted = await wish({ promisc: true, multicast: "all" });
      assertEquals([granted.body.promisc, granted.body.multicast], [true, "all"]);
      assertEquals(await heard(), { group: true, other: true, stranger: true });
      // What trust gave ends with it; what the PF allows is what it was.
      await fabric.patch(0, { trust: false });
      assertEquals(await heard(), { group: true, other: false, stranger: false });
      assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0`)).multicast, [GROUP]);
      await a.reaches(b.ip);
    });
  }
});

Deno.test("VEPA: guests with and without a VF reach each other only by way of the uplink's switch", async () => {
  await using fabric = await TestFabric.start(1, ["--guests", "3"]);
  const [a, c, d] = [0, 1, 2].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest];
  const pairs = [[a, c], [c, a], [c, d], [d, c]] as const;
  for (const [from, to] of pairs) await from.reaches(to.ip);
  await must(`${fabric.info.api}/api/v1/nic`, "PATCH", { switchMode: "vepa" });
  for (const [from, to] of pairs) assertEquals((await from.ping(to.ip, 2, { timeoutMs: 200 })).received, 0);
  // A switch with reflective relay (802.1Qbg): what comes goes back where it came from.
  const relay = await FrontEnd.connect(socketPath(fabric.runDir, "uplink")).start();
  relay.guest.fill(48);
  let relayed = 0;
  const relaying = setInterval(() => {
    const frames = relay.guest.receive();
    relayed += frames.length;
    relay.guest.fill(frames.length);
    relay.guest.send(frames);
    relay.kick(0);
    relay.kick();
  }, 1);
  try {
    for (const mode of Object.values(MODES)) {
      await setMode(fabric, 0, mode);
      // Everybody but the sender hears a broadcast, once.
      for (const from of [a, c, d]) {
        const { flow } = await from.send("255.255.255.255", { count: 5, rate: 1000 });
        const heard = () => Promise.all([a, c, d].map(async (guest) => await guest.flow(flow)));
        await until(
          "the others to hear it",
          async () => (await heard()).filter((flow) => (flow?.received ?? 0) >= 5).length === 2,
        );
        // What came twice would have come by now: a frame behind it has gone all the way.
        for (const to of [a, c, d]) if (to !== from) await from.reaches(to.ip);
        const times = (await heard()).map((flow) => flow ? [flow.received, flow.duplicates] : "nothing");
        assertEquals(times, [a, c, d].map((guest) => guest === from ? "nothing" : [5, 0]));
      }
      for (const [from, to] of pairs) {
        const before = relayed;
        const { received, duplicates } = await from.ping(to.ip, 3);
        assertEquals([received, duplicates], [3, 0]);
        assert(relayed >= before + 6, "questions and answers went by the relay");
      }
    }
  } finally {
    clearInterval(relaying);
    await relay[Symbol.asyncDispose]();
  }
  await must(`${fabric.info.api}/api/v1/nic`, "PATCH", { switchMode: "veb" });
  for (const [from, to] of pairs) await from.reaches(to.ip);
});

Deno.test("a guest that boots has all multicast that the PF allows, whatever the one before it wanted", async () => {
  await using fabric = await TestFabric.start(1, ["--guests", "1"]);
  const a = TestGuest.of(fabric, 0);
  await must(`${a.api}/api/v1/link`, "PATCH", { multicast: [GROUP] });
  assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0`)).guestMulticast, [GROUP]);
  // The vf service forgets who is there: not a boot of the guest's.
  const was = fabric.pid("vf");
  Deno.kill(was, "SIGKILL");
  await until("another vf service to know the guest", async () => {
    if ([was, undefined].includes(fabric.pids().vf)) return false;
    const { status, body } = await ask(`${fabric.url("vf")}/api/v1/guests`).catch(() => ({ status: 0, body: [] }));
    return status === 200 && body.length === 1;
  });
  assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0`)).guestMulticast, [GROUP]);
  const guest = fabric.guestPid(0);
  if (guest === undefined) throw new Error("there is no guest");
  Deno.kill(guest, "SIGKILL");
  await until(
    "the next guest's wish",
    async () => (await must(`${fabric.info.api}/api/v1/vfs/0`)).guestMulticast === null,
  );
});

Deno.test("multicast that a VF does not want does not reach it, in passthrough and emulated mode", async () => {
  await using fabric = await TestFabric.start(2);
  await using sender = await FrontEnd.connect(fabric.vf(0).socket).start();
  await using receiver = await FrontEnd.connect(fabric.vf(1).socket).start();
  receiver.guest.fill(48);
  const wanted = frame({ dst: "01:00:5e:00:00:fb", src: fabric.vf(0).mac, bytes: 80 });
  const unwanted = frame({ dst: "01:00:5e:01:10:01", src: fabric.vf(0).mac, bytes: 90 });
  const broadcast = frame({ dst: BROADCAST, src: fabric.vf(0).mac, bytes: 100 });
  for (const mode of ["passthrough", "emulated"]) {
    await setMode(fabric, 1, { mode });
    for (
      const [multicast, expected] of [
        ["all", [wanted, unwanted, broadcast]],
        ["none", [broadcast]],
        [["01:00:5e:00:00:fb"], [wanted, broadcast]],
      ] as const
    ) {
      await must(`${fabric.info.api}/api/v1/vfs/1`, "PATCH", { multicast });
      sender.guest.send([wanted, unwanted, broadcast]);
      sender.kick();
      const got: Uint8Array[] = [];
      await until("the frames", () => {
        got.push(...receiver.guest.receive());
        return got.length >= expected.length && sender.guest.unsent() === 0;
      });
      assertEquals(got, [...expected]);
    }
  }
});
