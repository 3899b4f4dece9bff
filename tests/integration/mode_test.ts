/** NPA: guests change between emulated mode and passthrough while they run, and nothing is lost. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Bystanders } from "../support/bystanders.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { ask, checkedStream, MODES, must, setMode, Stream, TestGuest } from "../support/guests.ts";
import { checkPolicies } from "../support/policies.ts";
import { until } from "../support/wait.ts";
import { authorized } from "../support/token.ts";

const SWITCHES = 1000;

Deno.test("guest and guest in every pair of modes: ping and checked streams", async (t) => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  for (const [left, modeA] of Object.entries(MODES)) {
    for (const [right, modeB] of Object.entries(MODES)) {
      await t.step(`${left} and ${right}`, async () => {
        await setMode(fabric, 0, modeA);
        await setMode(fabric, 1, modeB);
        assertEquals((await a.ping(b.ip, 3)).received, 3);
        assertEquals((await a.ping(b.ip, 3, { size: 1472 })).received, 3);
        await checkedStream(a, b, { rate: 20_000, size: 128, count: 4000 });
        await checkedStream(b, a, { rate: 5000, size: 1514, count: 1000 });
        const { mode, plugin } = await must(`${fabric.info.api}/api/v1/vfs/0/mode`);
        assertEquals({ mode, ...(plugin ? { plugin } : {}) }, modeA);
        const vf = await must(`${fabric.info.api}/api/v1/vfs/0`);
        assertEquals(vf.mode, modeA.mode);
        if (modeA.plugin) assertEquals(vf.plugin, `${modeA.plugin} 1.0.0`);
      });
    }
  }
});

Deno.test(`${SWITCHES} changes of mode under two checked streams of 10,000 frames a second: nothing lost, doubled, reordered`, async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await a.reaches(b.ip);
  const began = performance.now();
  const streams = [
    await Stream.start(a, b, { rate: 10_000, size: 128 }),
    await Stream.start(b, a, { rate: 10_000, size: 200 }),
  ];
  for (let i = 0; i < SWITCHES; i++) {
    const plugin = (i >> 2) % 2 === 0 ? "advanced" : "virtio";
    await setMode(fabric, (i >> 1) % 2, i % 2 === 0 ? { mode: "passthrough", plugin } : { mode: "emulated" });
  }
  const seconds = (performance.now() - began) / 1000;
  // Whatever a change of mode held up is caught up with.
  for (const stream of streams) {
    const sent = await stream.end();
    assert(sent > 9_500 * seconds, `only ${sent} frames were sent in ${seconds} s`);
  }
});

Deno.test("the same policy in every mode: VLAN, link, address, spoof check, rate", async (t) => {
  for (const [name, mode] of Object.entries(MODES)) {
    await t.step(name, async () => {
      await using fabric = await TestFabric.start(2, ["--guests", "2"]);
      const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
      await a.reaches(b.ip);
      for (const vf of [0, 1]) await setMode(fabric, vf, mode);
      await a.send(b.ip, { rate: 25_000, size: 1000 });
      // The guests do not hear of what is changed, and go on as they were.
      const vf = fabric.pid("vf");
      Deno.kill(vf, "SIGSTOP");
      try {
        await checkPolicies(fabric);
      } finally {
        Deno.kill(vf, "SIGCONT");
      }
    });
  }
});

Deno.test("virtio guests without a shell change hands without knowing, under traffic", async () => {
  await using fabric = await TestFabric.start(2);
  await using guests = await Bystanders.attach(fabric);
  for (let i = 0; i < 20; i++) {
    await setMode(fabric, i % 2, { mode: (i >> 1) % 2 === 0 ? "emulated" : "passthrough" });
    await guests.check(8);
  }
  const refused = await ask(`${fabric.info.api}/api/v1/vfs/0/mode`, "PUT", { mode: "passthrough", plugin: "advanced" });
  assertEquals([refused.status, refused.body.reason], [409, "incompatible-plugin"]);
  await guests.check(8);
});

Deno.test("why passthrough cannot be is named, and the guest stays on the path it had", async (t) => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  const put = (vf: number, mode: unknown) => ask(`${fabric.info.api}/api/v1/vfs/${vf}/mode`, "PUT", mode);
  const stillEmulated = async () => {
    assertEquals((await must(`${fabric.info.api}/api/v1/vfs/0/mode`)).mode, "emulated");
    assertEquals((await a.ping(b.ip, 2)).received, 2);
  };
  await t.step("a plugin that is not there", async () => {
    const { status, body } = await put(0, { mode: "passthrough", plugin: "mlx5" });
    assertEquals([status, body.reason, body.field], [404, "unknown-plugin", "plugin"]);
    assertStringIncludes(body.detail, "advanced@1.0.0");
    await stillEmulated();
  });
  await t.step("a plugin for other hardware than the VF presents", async () => {
    await fabric.patch(0, { hardware: "virtio" });
    const { status, body } = await put(0, { mode: "passthrough", plugin: "advanced" });
    assertEquals([status, body.reason], [409, "incompatible-plugin"]);
    await stillEmulated();
    // The hardware that is there takes the plugin that is for it, without being told which.
    assertEquals((await setMode(fabric, 0, { mode: "passthrough" })).plugin, "virtio");
    assertEquals((await a.ping(b.ip, 2)).received, 2);
    await setMode(fabric, 0, { mode: "emulated" });
    await fabric.patch(0, { hardware: "any" });
  });
  await t.step("two changes at a time", async () => {
    const answers = await Promise.all([1, 2, 3].map(() => put(0, { mode: "passthrough", plugin: "advanced" })));
    const refused = answers.filter(({ status }) => status !== 200);
    assert(refused.length >= 1);
    for (const { status, body } of refused) assertEquals([status, body.reason], [409, "operation-in-progress"]);
    await setMode(fabric, 0, { mode: "emulated" });
    await stillEmulated();
  });
  await t.step("a VF that is held already", async () => {
    await must(`${fabric.url("nic")}/api/v1/vfs/0/hold`, "POST", { deadlineMs: 10_000 });
    const { status, body } = await put(0, { mode: "passthrough", plugin: "advanced" });
    assertEquals([status, body.reason], [409, "operation-in-progress"]);
    await must(`${fabric.url("nic")}/api/v1/vfs/0/hold`, "DELETE");
    await stillEmulated();
  });
  await t.step("a VF that does not exist, and a mode that is none", async () => {
    assertEquals((await put(7, { mode: "emulated" })).status, 404);
    assertEquals((await put(0, { mode: "sideways" })).body.field, "mode");
    assertEquals((await put(0, { mode: "emulated", plugin: "advanced" })).body.reason, "incompatible-plugin");
  });
});

Deno.test("guest memory that the NIC cannot take: the guest stays emulated, and the reason is named", async () => {
  await using fabric = await TestFabric.start(3);
  // Two large guests in passthrough leave the third one its part of the NIC's 4 GiB; it wants more, and finds that in
  // emulated mode only.
  const mib = 1024 ** 2;
  await using first = await FrontEnd.connect(fabric.vf(0).socket, { bytes: 1900 * mib }).start();
  await using second = await FrontEnd.connect(fabric.vf(1).socket, { bytes: 1300 * mib }).start();
  void [first, second];
  await setMode(fabric, 2, { mode: "emulated" });
  await using third = await FrontEnd.connect(fabric.vf(2).socket, { bytes: 1000 * mib }).start();
  void third;
  const { status, body } = await ask(`${fabric.info.api}/api/v1/vfs/2/mode`, "PUT", { mode: "passthrough" });
  assertEquals([status, body.reason], [409, "memory-not-shareable"], JSON.stringify(body));
  assertEquals((await must(`${fabric.info.api}/api/v1/vfs/2/mode`)).mode, "emulated");
  const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/2`);
  assertEquals(session.vrings.map(({ running }: { running: boolean }) => running), [true, true]);
});

Deno.test("pf, vf and vhost killed under passthrough traffic: the stream does not notice", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  await setMode(fabric, 1, { mode: "passthrough", plugin: "virtio" });
  const stream = await Stream.start(a, b, { rate: 10_000, size: 128 });
  for (const name of ["pf", "vf", "vhost"]) {
    const pid = fabric.pid(name);
    Deno.kill(pid, "SIGKILL");
    await until(`${name} to be there again`, async () => {
      const again = fabric.pids()[name];
      if (again === undefined || again === pid) return false;
      return (await authorized(`${fabric.url(name as "pf")}/readyz`).then(async (response) => {
        await response.body?.cancel();
        return response.ok;
      }).catch(() => false));
    });
    await until("the guests to be connected", async () => {
      const modes = await Promise.all([a, b].map(({ api }) => must(`${api}/api/v1/mode`)));
      return modes.every(({ mode, connected }) => mode === "passthrough" && connected);
    });
  }
  await stream.end();
  // And everything can still be changed.
  await until(
    "the guests to have reported",
    async () => (await must(`${fabric.url("vf")}/api/v1/guests`)).length === 2,
  );
  await setMode(fabric, 0, { mode: "emulated" });
  await checkedStream(a, b, { rate: 10_000, count: 1000 });
});

Deno.test("vhost asked to stop under passthrough: the plugin goes on, and the way back is still there", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  await setMode(fabric, 1, { mode: "passthrough", plugin: "virtio" });
  const stream = await Stream.start(a, b, { rate: 10_000, size: 128 });
  const pid = fabric.pid("vhost");
  Deno.kill(pid, "SIGTERM");
  await until("vhost to be there again, and the guest with it", async () => {
    const again = fabric.pids().vhost;
    return again !== undefined && again !== pid && (await must(`${a.api}/api/v1/mode`)).connected &&
      (await ask(`${fabric.info.api}/api/v1/vfs/0/mode`)).body.mode === "passthrough";
  });
  await stream.end();
  await setMode(fabric, 0, { mode: "emulated" });
  assertEquals((await a.ping(b.ip, 2)).received, 2);
});

Deno.test("the vf service killed while a guest is at rest: its successor has the guest send again", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  for (const mode of [{ mode: "emulated" }, { mode: "passthrough", plugin: "virtio" }] as const) {
    if (mode.mode === "passthrough") await setMode(fabric, 0, mode);
    await must(`${a.api}/api/v1/path/quiesce`, "POST", { deadlineMs: 1000 });
    assertEquals((await a.ping(b.ip, 1, { timeoutMs: 100 })).received, 0);
    Deno.kill(fabric.pid("vf"), "SIGKILL");
    await a.reaches(b.ip);
  }
});

Deno.test("a guest killed while its plugin drives the VF: the VF is cleaned up, its neighbours go on", async () => {
  await using fabric = await TestFabric.start(3, ["--guests", "3"]);
  const [a, b, c] = [0, 1, 2].map((i) => TestGuest.of(fabric, i)) as [TestGuest, TestGuest, TestGuest];
  for (const vf of [0, 1, 2]) await setMode(fabric, vf, { mode: "passthrough", plugin: "advanced" });
  assertEquals((await c.ping(a.ip, 2)).received, 2);
  const stream = await Stream.start(a, b, { rate: 10_000, size: 128 });
  const pid = fabric.guestPid(2);
  if (pid === undefined) throw new Error("guest 2 does not run");
  Deno.kill(pid, "SIGKILL");
  await until("the VF to be free, and its guest to be there again", async () => {
    const vf = await must(`${fabric.info.api}/api/v1/vfs/2`);
    const again = fabric.guestPid(2);
    return again !== undefined && again !== pid && vf.mode === "emulated" && vf.attached;
  });
  await c.reaches(a.ip);
  await stream.end();
  await setMode(fabric, 2, { mode: "passthrough", plugin: "virtio" });
  assertEquals((await c.ping(a.ip, 2)).received, 2);
});

Deno.test("the NIC killed under passthrough: guests fall back to emulated mode by themselves", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  const pid = fabric.pids().nic;
  if (pid === undefined) throw new Error("nic does not run");
  Deno.kill(pid, "SIGKILL");
  await until("vf 0 to be emulated", async () => {
    const mode = await ask(`${fabric.info.api}/api/v1/vfs/0/mode`);
    return mode.status === 200 && mode.body.mode === "emulated" && mode.body.lastFailure?.reason === "plugin-failed";
  });
  await a.reaches(b.ip);
  await setMode(fabric, 0, { mode: "passthrough", plugin: "advanced" });
  assertEquals((await a.ping(b.ip, 2)).received, 2);
});

Deno.test("whoever listens to the PF is told of a change that the vf service was asked for itself, also after it died", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "2"]);
  await using events = await fabric.events();
  const change = async (request: { mode: string; plugin?: string }) => {
    await must(`${fabric.url("vf")}/api/v1/vfs/1/mode`, "PUT", request);
    return await events.until((event) =>
      event.type === "mode-changed" && event.vf === 1 && event.mode === request.mode
    );
  };
  assertEquals((await change({ mode: "passthrough", plugin: "virtio" })).plugin, "virtio");
  Deno.kill(fabric.pid("vf"), "SIGKILL");
  await until("the vf service to be back", () => change({ mode: "emulated" }).catch(() => undefined), 30_000);
});
