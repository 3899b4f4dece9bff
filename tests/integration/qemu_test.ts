/** Two unmodified Linux guests in QEMU on VFs 0 and 1: they ping, exchange files, and are kept apart by HTTP. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { QemuGuest } from "../support/qemu.ts";
import { until } from "../support/wait.ts";

/** Sends pings every 20 ms until told; answers when the first came through. */
async function pings(guest: QemuGuest, address: string): Promise<boolean> {
  return (await guest.run(`ping -c 1 -W 1 ${address}`)).code === 0;
}

judgedTest(["qemu"], "QEMU guests ping, copy a file, and obey VLAN, link state and MAC changes", async (t) => {
  await using fabric = await TestFabric.start(4);
  const [a, b] = await Promise.all([QemuGuest.boot(fabric.vf(0)), QemuGuest.boot(fabric.vf(1))]);
  await using _a = a;
  await using _b = b;
  await a.address("10.0.0.1/24");
  await b.address("10.0.0.2/24");

  await t.step("they ping each other through VF 0 and VF 1", async () => {
    await until("the first ping", () => pings(a, "10.0.0.2"), 20_000);
    const output = await a.check("ping -c 20 -i 0.05 10.0.0.2");
    assert(/20 packets transmitted, 20 packets received/.test(output), output);
    const counters = await fabric.counters(1);
    assert((counters.rx_frames ?? 0) >= 20 && (counters.tx_frames ?? 0) >= 20);
  });

  await t.step("a 64 MiB file arrives over TCP with the same sha256", async () => {
    await a.check("dd if=/dev/urandom of=/tmp/sent bs=1M count=64", 120_000);
    const sent = (await a.check("sha256sum < /tmp/sent", 120_000)).trim();
    const receiving = b.check("nc -l -p 5000 > /tmp/received && sha256sum < /tmp/received", 300_000);
    await until(
      "the receiver to listen",
      async () => (await a.run("nc 10.0.0.2 5000 < /tmp/sent", 300_000)).code === 0,
      300_000,
    );
    assertEquals((await receiving).trim(), sent);
    await a.check("rm /tmp/sent");
    await b.check("rm /tmp/received");
  });

  await t.step("a VLAN set by HTTP separates them while they ping; a second one joins them again", async () => {
    await fabric.patch(1, { vlan: 100 });
    assertEquals(await pings(a, "10.0.0.2"), false);
    await fabric.patch(0, { vlan: 100 });
    await until("pings in the common VLAN", () => pings(a, "10.0.0.2"));
    await fabric.patch(0, { vlan: 0 });
    await fabric.patch(1, { vlan: 0 });
    await until("pings without VLAN", () => pings(a, "10.0.0.2"));
  });

  await t.step("link state, spoof check and MAC are in force for a Linux guest", async () => {
    await fabric.patch(1, { linkState: "disable" });
    assertEquals(await pings(a, "10.0.0.2"), false);
    await fabric.patch(1, { linkState: "auto" });
    await until("pings with the link back", () => pings(a, "10.0.0.2"));
    await a.check("ip link set eth0 down && ip link set eth0 address 02:66:00:00:00:01 && ip link set eth0 up");
    assertEquals(await pings(a, "10.0.0.2"), false);
    assert(((await fabric.counters(0)).tx_spoofed ?? 0) > 0);
    await fabric.patch(0, { mac: "02:66:00:00:00:01" });
    await until("pings with the new address", () => pings(a, "10.0.0.2"));
  });

  await t.step("no queue is in error", async () => {
    for (const vf of await fabric.get("/api/v1/vfs")) {
      for (const queue of vf.queues) assertEquals(queue.state, "running", JSON.stringify(queue));
    }
  });
});

judgedTest(["qemu"], "a QEMU guest with two queue pairs talks to one with one", async () => {
  await using fabric = await TestFabric.start(2);
  const [a, b] = await Promise.all([QemuGuest.boot(fabric.vf(0), { queuePairs: 2 }), QemuGuest.boot(fabric.vf(1))]);
  await using _a = a;
  await using _b = b;
  await a.address("10.0.0.1/24");
  await b.address("10.0.0.2/24");
  await until("the first ping", () => pings(a, "10.0.0.2"), 20_000);
  const output = await b.check("ping -c 20 -i 0.05 10.0.0.1");
  assert(/20 packets transmitted, 20 packets received/.test(output), output);
});

judgedTest(
  ["qemu"],
  "QEMU guests with packed=on ping, copy a file and change hands; one without talks to them",
  async () => {
    await using fabric = await TestFabric.start(3);
    const [a, b, c] = await Promise.all([
      QemuGuest.boot(fabric.vf(0), { device: "packed=on" }),
      QemuGuest.boot(fabric.vf(1), { device: "packed=on" }),
      QemuGuest.boot(fabric.vf(2)),
    ]);
    await using _a = a;
    await using _b = b;
    await using _c = c;
    await a.address("10.0.0.1/24");
    await b.address("10.0.0.2/24");
    await c.address("10.0.0.3/24");
    for (const [address, flavour] of [["10.0.0.2", "packed"], ["10.0.0.3", "split"]] as const) {
      await until("the first ping", () => pings(a, address), 20_000);
      const output = await a.check(`ping -c 20 -i 0.05 ${address}`);
      assert(/20 packets transmitted, 20 packets received/.test(output), output);
      const { queues } = await fabric.get(`/api/v1/vfs/${address.endsWith("2") ? 1 : 2}`);
      for (const queue of queues) assertEquals([queue.state, queue.flavour], ["running", flavour]);
    }
    // The file is on its way while both guests' data paths change.
    await a.check("dd if=/dev/urandom of=/tmp/sent bs=1M count=32", 120_000);
    const sent = (await a.check("sha256sum < /tmp/sent", 120_000)).trim();
    const receiving = b.check("nc -l -p 5000 > /tmp/received && sha256sum < /tmp/received", 300_000);
    let isSent = false;
    const sending = until(
      "the receiver to listen",
      async () => (await a.run("nc 10.0.0.2 5000 < /tmp/sent", 300_000)).code === 0,
      300_000,
    ).finally(() => isSent = true);
    for (let i = 0; !isSent || i < 8; i++) {
      const dataPath = ["copy", "zerocopy", "headersplit"][(i >> 1) % 4];
      await setMode(fabric, i % 2, dataPath ? { mode: "emulated", dataPath } : { mode: "passthrough" });
    }
    await sending;
    assertEquals((await receiving).trim(), sent);
  },
);

judgedTest(["qemu"], "memory plugged into a running QEMU guest is mapped while it pings", async () => {
  await using fabric = await TestFabric.start(2);
  const plug = { monitor: `${fabric.runDir}/monitor`, extra: ["-m", "256M,slots=2,maxmem=1G"] };
  const [a, b] = await Promise.all([QemuGuest.boot(fabric.vf(0), plug), QemuGuest.boot(fabric.vf(1))]);
  await using _a = a;
  await using _b = b;
  await a.address("10.0.0.1/24");
  await b.address("10.0.0.2/24");
  await until("the first ping", () => pings(a, "10.0.0.2"), 20_000);
  const { regions } = (await fabric.get("/api/v1/vfs/0")).memory;
  const memory = { "qom-type": "memory-backend-memfd", id: "more", size: 256 * 1024 ** 2, share: true };
  await a.monitor.execute("object-add", memory);
  await a.monitor.execute("device_add", { driver: "pc-dimm", id: "dimm", memdev: "more" });
  await until("the new region", async () => (await fabric.get("/api/v1/vfs/0")).memory.regions > regions);
  const output = await a.check("ping -c 10 -i 0.05 10.0.0.2");
  assert(/10 packets transmitted, 10 packets received/.test(output), output);
});
