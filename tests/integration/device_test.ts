/** What a front-end gets of its VF beside frames: changes on the back-channel, and announcements into its VLAN. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { until } from "../support/wait.ts";
import { Wakeup } from "../support/wakeup.ts";
import { authorized } from "../support/token.ts";

const CONFIG_CHANGE_MSG = [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];

Deno.test("a VF's link and address are told on the back-channel; one that is full and blocking holds nobody up", async () => {
  await using fabric = await TestFabric.start(2);
  await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
  using channel = new Wakeup("socket");
  assertEquals(await front.acknowledged("VHOST_USER_SET_BACKEND_REQ_FD", new Uint8Array(), [channel.sent.number]), 0n);
  await fabric.patch(0, { linkState: "disable" });
  assertEquals(
    await until("the change", () => (({ length, ...bytes }) => length > 0 && Object.values(bytes))(channel.read(64))),
    CONFIG_CHANGE_MSG,
  );
  channel.block();
  for (const linkState of ["enable", "disable", "auto"] as const) await fabric.patch(0, { linkState });
  await fabric.patch(1, { mtu: 9000 });
  assertEquals(await front.acknowledged("VHOST_USER_SET_OWNER"), 0n);
});

Deno.test("SEND_RARP goes to everybody in the VF's VLAN, and to nobody else", async () => {
  await using fabric = await TestFabric.start(3);
  for (const vf of [0, 1]) await fabric.patch(vf, { vlan: 7 });
  await using a = await FrontEnd.connect(fabric.vf(0).socket).start();
  await using b = await FrontEnd.connect(fabric.vf(1).socket).start();
  await using c = await FrontEnd.connect(fabric.vf(2).socket).start();
  for (const front of [b, c]) {
    front.guest.fill(8);
    front.kick(0);
  }
  const mac = fabric.vf(0).mac.split(":").map((byte) => parseInt(byte, 16));
  for (const path of ["passthrough", "emulated"]) {
    const response = await authorized(`${fabric.info.api}/api/v1/vfs/0/mode`, {
      method: "PUT",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ mode: path }),
    });
    assert(response.ok, await response.text());
    await a.acknowledged("VHOST_USER_SEND_RARP", Uint8Array.from([...mac, 0, 0]));
    const [frame] = await until("the announcement", () => {
      const frames = b.guest.receive();
      return frames.length > 0 && frames;
    });
    assertEquals([...frame ?? []].slice(0, 22), [
      ...[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, ...mac, 0x80, 0x35],
      ...[0, 1, 8, 0, 6, 4, 0, 3],
    ]);
    assertEquals([...frame ?? []].slice(22, 42), [...mac, 0, 0, 0, 0, ...mac, 0, 0, 0, 0]);
    assertEquals(c.guest.receive(), []);
  }
});
