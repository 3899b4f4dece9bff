/**
 * Unmodified Linux by User-Mode Linux, a front-end that hands features, configuration space and control queue to us as
 * they are: what `ip link` in the guest and `fabric vf set` outside say is the same thing.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { UmlGuest } from "../support/uml.ts";
import { until } from "../support/wait.ts";
import { authorized } from "../support/token.ts";

const GIB = 1024 ** 3;
/** Prints what comes on the first connection to port 5000. netcat reads a KiB at a time: system calls are dear there. */
const LISTENER =
  "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); bind(S, sockaddr_in(5000, INADDR_ANY)); listen(S, 1); " +
  "accept(C, S); syswrite(STDOUT, $b) while sysread(C, $b, 1 << 20)";

/** Two guests on VFs 0 and 1, which reach each other. */
async function pair(fabric: TestFabric, modules: string[] = []): Promise<[UmlGuest, UmlGuest]> {
  const [a, b] = await Promise.all([0, 1].map((vf) => UmlGuest.boot(fabric.vf(vf).socket, { modules })));
  if (!a || !b) throw new Error("two guests");
  await a.address("10.0.0.1/24");
  await b.address("10.0.0.2/24");
  await a.untilReaches("10.0.0.2");
  return [a, b];
}

const carrier = async (guest: UmlGuest) => (await guest.run("cat /sys/class/net/eth0/carrier")).output.trim();

judgedTest(["uml"], "two guests of User-Mode Linux ping and pass a GiB of TCP", async () => {
  await using fabric = await TestFabric.start(2);
  const [a, b] = await pair(fabric);
  await using _a = a;
  await using _b = b;
  assertStringIncludes(await a.check("ping -c 20 -i 0.05 10.0.0.2"), "20 packets transmitted, 20 received");
  await b.check(`(perl -e '${LISTENER}' | sha256sum >/run/sum; touch /run/done) >/dev/null 2>&1 &`);
  await until("the receiver to listen", async () => (await b.run("ss -ltn | grep -q :5000")).code === 0);
  const sent = await a.check(
    `head -c ${GIB} /dev/urandom | tee >(cat >/dev/tcp/10.0.0.2/5000) | sha256sum`,
    300_000,
  );
  await until("the last byte", async () => (await b.run("test -e /run/done")).code === 0, 60_000);
  assertEquals(await b.check("cat /run/sum"), sent);
  const counters = await fabric.counters(1);
  assert((counters.rx_bytes ?? 0) > GIB);
});

judgedTest(["uml"], "the guest's address, MTU and carrier are its VF's", async (t) => {
  await using fabric = await TestFabric.start(2);
  await fabric.patch(0, { mtu: 1400 });
  const [a, b] = await pair(fabric);
  await using _a = a;
  await using _b = b;

  await t.step("address and MTU", async () => {
    const link = await a.check("ip link show eth0");
    assertStringIncludes(link, fabric.vf(0).mac);
    assertStringIncludes(link, "mtu 1400");
  });

  await t.step("a link that the PF takes away is a carrier that the guest loses", async () => {
    assertEquals(await carrier(a), "1");
    await fabric.patch(0, { linkState: "disable" });
    await until("the carrier to go", async () => await carrier(a) === "0");
    assertEquals(await a.reaches("10.0.0.2"), false);
    await fabric.patch(0, { linkState: "auto" });
    await until("the carrier to come back", async () => await carrier(a) === "1");
    await a.untilReaches("10.0.0.2");
  });

  await t.step("the guest changes its address, while the PF has set none", async () => {
    await a.check("ip link set eth0 address 02:66:00:00:00:01");
    assertEquals((await fabric.get("/api/v1/vfs/0")).mac, "02:66:00:00:00:01");
    await a.untilReaches("10.0.0.2");
    assertEquals((await fabric.counters(0)).tx_spoofed, 0);
  });

  await t.step("an address that the PF has set stays, and the refusal is told", async () => {
    await using events = await fabric.events();
    await fabric.patch(0, { mac: "02:66:00:00:00:02" });
    const { code, output } = await a.run("ip link set eth0 address 02:66:00:00:00:03");
    assert(code !== 0, output);
    assertEquals((await fabric.get("/api/v1/vfs/0")).mac, "02:66:00:00:00:02");
    const refusal = await events.until((event) => event.type === "wish-refused");
    assertStringIncludes(String(refusal.detail), "vf 0 may not change its address: the PF has set 02:66:00:00:00:02");
  });

  await t.step("promiscuous mode needs trust", async () => {
    await a.check("ip link set eth0 promisc on");
    await a.untilLogged("Failed to enable promisc mode");
    assertEquals((await fabric.get("/api/v1/vfs/0")).promisc, false);
    await a.check("ip link set eth0 promisc off");
    await fabric.patch(0, { trust: true });
    await a.check("ip link set eth0 promisc on");
    await until("the wish to be granted", async () => (await fabric.get("/api/v1/vfs/0")).promisc);
  });
});

judgedTest(["uml"], "a VLAN interface in the guest, on a trunk VF", async () => {
  await using fabric = await TestFabric.start(2);
  await fabric.patch(0, { trunk: [5] });
  await fabric.patch(1, { trunk: [5] });
  const [a, b] = await pair(fabric, ["8021q"]);
  await using _a = a;
  await using _b = b;
  for (const [guest, ip] of [[a, "10.5.0.1/24"], [b, "10.5.0.2/24"]] as const) {
    await guest.check("ip link add link eth0 name eth0.5 type vlan id 5");
    await guest.check(`ip addr add ${ip} dev eth0.5 && ip link set eth0.5 up`);
  }
  await a.untilReaches("10.5.0.2");
  await a.check("ip link add link eth0 name eth0.6 type vlan id 6");
  await a.untilLogged("Failed to add VLAN ID 6");
});

judgedTest(["uml"], "a guest that is killed and booted again has its VF again, ten times", async () => {
  await using fabric = await TestFabric.start(2);
  const [a, b] = await pair(fabric);
  await using _b = b;
  await a.kill();
  for (let i = 0; i < 10; i++) {
    await using again = await UmlGuest.boot(fabric.vf(0).socket);
    await again.address("10.0.0.1/24");
    await again.untilReaches("10.0.0.2");
    if (i % 2 === 0) await again.kill();
  }
  await until(
    "what the guest wanted to receive to go with it",
    async () => (await fabric.get("/api/v1/vfs/0")).guestMulticast === null,
  );
});

judgedTest(["uml"], "a guest without a VF, on the software switch", async () => {
  await using fabric = await TestFabric.start(1);
  const { status } = await authorized(`${fabric.info.api}/api/v1/vports`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: "{}",
  }).then(async (response) => (await response.body?.cancel(), response));
  assertEquals(status, 201);
  const vport = await fabric.get("/api/v1/vports/0");
  await using a = await UmlGuest.boot(fabric.vf(0).socket);
  await using b = await UmlGuest.boot(vport.socket);
  await a.address("10.0.0.1/24");
  await b.address("10.0.0.2/24");
  assertStringIncludes(await b.check("ip link show eth0"), vport.mac);
  await a.untilReaches("10.0.0.2");
  await b.check("ip link set eth0 address 02:77:00:00:00:01");
  assertEquals((await fabric.get("/api/v1/vports/0")).mac, "02:77:00:00:00:01");
  await b.untilReaches("10.0.0.1");
});

judgedTest(["uml"], "a guest changes its mode under iperf3, and its stream goes on", async () => {
  await using fabric = await TestFabric.start(2);
  const [a, b] = await pair(fabric);
  await using _a = a;
  await using _b = b;
  await b.check("iperf3 -s -D >/dev/null 2>&1; sleep 0.3");
  const stream = a.check("iperf3 -c 10.0.0.2 -t 8 -J", 60_000);
  for (let i = 0; i < 10; i++) {
    for (const mode of ["emulated", "passthrough"] as const) await setMode(fabric, 0, { mode });
  }
  const { end } = JSON.parse(await stream);
  assert(end.sum_received.bytes > 1e6, JSON.stringify(end.sum_received));
  await a.untilReaches("10.0.0.2");
  assertEquals(await carrier(a), "1");
});
