/** Packet sockets as uplinks: any interface of the host is the fabric's line to the outside, tags included. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { Cable, NetNamespace, uniqueName } from "../support/net_namespace.ts";
import { UmlGuest } from "../support/uml.ts";
import { passTcp, setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

/** Checks that nothing was lost at the uplink for a fault of its own. */
async function checkFaultless(fabric: TestFabric): Promise<void> {
  const { counters } = await uplinkOf(fabric);
  const faults = ["in_cut_off", "in_runt", "in_errors", "out_refused", "out_too_long", "out_runt"];
  assertEquals(faults.map((name) => [name, counters[name]]), faults.map((name) => [name, 0]));
  assertEquals((await must(`${fabric.url("nic")}/api/v1/state`)).uplink.counters.tx_bad_offload, 0);
}

judgedTest(["uml"], "an interface of the host by a packet socket: TCP both ways; its link is followed", async () => {
  await using fabric = await TestFabric.start(1);
  const wire = uniqueName("rfw");
  await using outside = await NetNamespace.wired(wire, "10.0.0.9/24");
  await setUplink(fabric, { kind: "packet", interface: wire });
  await using guest = await UmlGuest.boot(fabric.vf(0).socket);
  await guest.address("10.0.0.1/24");
  await guest.untilReaches("10.0.0.9");
  await passTcp(guest, outside, "10.0.0.9");
  await checkFaultless(fabric);

  await outside.ip("link set eth0 down");
  await until("the link to be down", async () => (await uplinkOf(fabric)).state === "down");
  await outside.ip("link set eth0 up");
  await guest.untilReaches("10.0.0.9");
  await run("ip", ["link", "del", wire]);
  const { reason } = await until("it to have failed", async () => {
    const state = await uplinkOf(fabric);
    return state.state === "failed" && state;
  });
  assertMatch(reason ?? "", /gone|no such interface/);
});

judgedTest(["uml"], "two fabrics on one cable: tags that the kernel takes out are put in again", async () => {
  await using cable = await Cable.make();
  await using near = await TestFabric.start(1);
  await using far = await TestFabric.start(1);
  await setUplink(near, { kind: "packet", interface: cable.ends[0] });
  await setUplink(far, { kind: "packet", interface: cable.ends[1] });
  await near.patch(0, { trunk: [5] });
  await far.patch(0, { vlan: 5 });
  await using trunk = await UmlGuest.boot(near.vf(0).socket, { modules: ["8021q"] });
  await using access = await UmlGuest.boot(far.vf(0).socket);
  await trunk.check("ip link set eth0 up && ip link add link eth0 name eth0.5 type vlan id 5");
  await trunk.check("ip addr add 10.5.0.1/24 dev eth0.5 && ip link set eth0.5 up");
  await access.address("10.5.0.2/24");
  await trunk.untilReaches("10.5.0.2");
  await access.check("iperf3 -s -D >/dev/null 2>&1; sleep 0.3");
  for (const way of ["", "-R"]) {
    const { end } = JSON.parse(await trunk.check(`iperf3 -c 10.5.0.2 -t 2 -J ${way}`, 60_000));
    assert(end.sum_received.bytes > 1e6, JSON.stringify(end.sum_received));
  }
  for (const fabric of [near, far]) await checkFaultless(fabric);
  // The far one's guest leaves the VLAN.
  await far.patch(0, { vlan: 6 });
  assertEquals(await trunk.reaches("10.5.0.2"), false);
});
