/** AF_XDP sockets as uplinks, on a veth: frames past the kernel's stack, the rings in the port's own memory. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { judgedTest, run } from "../support/judges.ts";
import { NetNamespace, uniqueName } from "../support/net_namespace.ts";
import { UmlGuest } from "../support/uml.ts";
import { passTcp, putUplink, setUplink, uplinkOf } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

judgedTest(
  ["uml"],
  "an interface by AF_XDP: TCP both ways, its link, and another uplink in its place",
  async (t) => {
    await using fabric = await TestFabric.start(1);
    const wire = uniqueName("rfw");
    await using outside = await NetNamespace.wired(wire, "10.0.0.9/24");
    // A veth hands frames over whose checksum nobody has filled in, and XDP has no word for that.
    await outside.run("ethtool", "-K", "eth0", "tx", "off");
    const state = await setUplink(fabric, { kind: "xdp", interface: wire });
    assertEquals([state.io, state.offloads], ["af_xdp", []]);
    await using guest = await UmlGuest.boot(fabric.vf(0).socket);
    await guest.address("10.0.0.1/24");

    await t.step("TCP", async () => {
      await guest.untilReaches("10.0.0.9");
      await passTcp(guest, outside, "10.0.0.9");
      assertStringIncludes(await run("ip", ["-d", "link", "show", wire]), "xdp");
    });

    await t.step("link", async () => {
      await outside.ip("link set eth0 down");
      await until("the link to be down", async () => (await uplinkOf(fabric)).state === "down");
      await outside.ip("link set eth0 up");
      await guest.untilReaches("10.0.0.9");
      await run("ip", ["link", "set", wire, "down"]);
      await guest.reaches("10.0.0.9");
      await run("ip", ["link", "set", wire, "up"]);
      await guest.untilReaches("10.0.0.9");
    });

    await t.step("exchanged for itself, and for a packet socket", async () => {
      for (let i = 0; i < 5; i++) await setUplink(fabric, { kind: "xdp", interface: wire });
      await guest.untilReaches("10.0.0.9");
      await setUplink(fabric, { kind: "packet", interface: wire });
      assertEquals((await run("ip", ["-d", "link", "show", wire])).includes("xdp"), false);
      await guest.untilReaches("10.0.0.9");
    });

    await t.step("what cannot be is refused, with what to do", async () => {
      assertStringIncludes(
        (await putUplink(fabric, { kind: "xdp", interface: "rf-none" })).body.detail,
        "no such interface",
      );
      const { status, body } = await putUplink(fabric, { kind: "xdp", interface: wire, queue: 9 });
      assertEquals(status, 409);
      assertStringIncludes(body.detail, "it has no queue 9");
      await guest.untilReaches("10.0.0.9");
    });
  },
);
