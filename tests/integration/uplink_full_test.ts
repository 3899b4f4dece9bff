/**
 * A guest that sends faster than the uplink takes is slowed down by it: DPDK's virtio-user pushes as fast as it can, and
 * what it has sent arrives at the other end.
 */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { judgedTest, run } from "../support/judges.ts";
import { Cable } from "../support/net_namespace.ts";
import { Testpmd } from "../support/testpmd.ts";
import { setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

const GUEST_MAC = "52:54:00:00:00:01";
const OUTSIDE_MAC = "52:54:00:00:00:02";
const FRAMES = 200_000;

for (const kind of ["packet", "xdp"] as const) {
  judgedTest(["testpmd"], `a guest that pushes as fast as it can waits for its uplink (${kind})`, async () => {
    await using cable = await Cable.make();
    const [wire, far] = cable.ends;
    await using fabric = await TestFabric.start(1, ["--no-standby"]);
    await fabric.patch(0, { mac: GUEST_MAC });
    await setUplink(fabric, { kind, interface: wire });
    const arrived = () => Number(Deno.readTextFileSync(`/sys/class/net/${far}/statistics/rx_packets`));
    const uplink = async () => (await must(`${fabric.url("nic")}/api/v1/state`)).uplink.counters;
    const before = arrived();
    await using guest = await Testpmd.start({
      prefix: `rf-full-${kind}`,
      ports: [{ socket: fabric.vf(0).socket, mac: GUEST_MAC, args: ",in_order=0,mrg_rxbuf=1" }],
      queueSize: 1024,
      forward: "mac",
      eal: ["--vdev", "net_null0,size=60"],
      extra: [`--eth-peer=0,${OUTSIDE_MAC}`],
    });
    await guest.command("start");
    await until("frames at the other end", () => arrived() > before + FRAMES, 60_000);
    await guest.command("stop");
    const { tx_frames = 0, tx_held = 0 } = await until("the rest to be sent", async () => {
      const counters = await fabric.counters(0);
      const { rx_frames } = await uplink();
      return rx_frames === counters.tx_frames && counters;
    });
    assert(tx_held > 0, "it has waited");
    const { rx_no_buffer, rx_stalled } = await uplink();
    assertEquals({ rx_no_buffer, rx_stalled }, { rx_no_buffer: 0, rx_stalled: 0 });
    const { counters } = await until("the uplink to have sent them", async () => {
      const state = await uplinkOf(fabric);
      return state.counters.out_frames === tx_frames && state;
    });
    assertEquals([counters.out_busy, counters.out_down, counters.out_refused], [0, 0, 0]);
    // A veth's other end drops by itself what its CPU does not get to.
    await until("them at the other end", async () => arrived() - before + (await dropped(far)) >= tx_frames);
  });
}

/** Frames that `name` was given and dropped. */
async function dropped(name: string): Promise<number> {
  const [{ stats64 }] = JSON.parse(await run("ip", ["-s", "-j", "link", "show", name]));
  return stats64.rx.dropped;
}
