/** Queue pairs that a port offers: what front-ends read, which rings there are, and that a session keeps its number. */
import { assertEquals } from "@std/assert";
import * as V from "../../shared/layout/virtio.ts";
import { VHOST_USER_PROTOCOL_F_CONFIG, VHOST_USER_PROTOCOL_F_MQ } from "../../shared/vhost_user/mod.ts";
import { VfPatch } from "../../shared/api/mod.ts";
import { controlIndexOf } from "../../services/vhost/negotiation.ts";
import { bits } from "../support/front_end.ts";
import { PROTOCOL_FEATURES, TestSession, u64, vringState, WITH_PROTOCOL_FEATURES } from "../support/test_session.ts";

/** A session of a port that offers `queuePairs`, whose front-end agrees on everything but these protocol features. */
async function offered(queuePairs: number, ...without: number[]): Promise<TestSession> {
  const test = new TestSession("passthrough", {}, { queuePairs });
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES & ~bits(...without)));
  await test.send(
    "VHOST_USER_SET_FEATURES",
    u64(WITH_PROTOCOL_FEATURES | bits(V.VIRTIO_NET_F_CTRL_VQ, V.VIRTIO_NET_F_MQ)),
  );
  await test.setMemory(1);
  return test;
}

const number = async (test: TestSession) => Number((await test.ask("VHOST_USER_GET_QUEUE_NUM"))?.getBigUint64(0, true));
/** max_virtqueue_pairs of the configuration space. */
const inConfig = async (test: TestSession) => {
  const request = new Uint8Array(new Uint32Array([V.VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS, 2, 0]).buffer);
  const answer = await test.ask("VHOST_USER_GET_CONFIG", new Uint8Array([...request, 0, 0]));
  return answer?.getUint16(12, true);
};

for (const pairs of [1, 2, 4, 16]) {
  Deno.test(`${pairs} queue pairs are what a front-end reads, as pairs or as virtqueues, and what its guest reads`, async () => {
    await using qemu = await offered(pairs, VHOST_USER_PROTOCOL_F_CONFIG);
    assertEquals(await number(qemu), pairs);
    await using crosvm = await offered(pairs);
    assertEquals([await number(crosvm), await inConfig(crosvm), crosvm.state.queuePairs], [
      2 * pairs + 1,
      pairs,
      pairs,
    ]);
  });

  Deno.test(`of ${pairs} queue pairs every ring runs, and behind them lies the control queue`, async () => {
    await using test = await offered(pairs);
    const rings = Array.from({ length: Math.min(4, 2 * pairs) }, (_, i) => i);
    await test.startRings(...rings);
    // The driver receives on the first pair until it has asked for more.
    assertEquals(test.running, rings.filter((index) => index === 0 || index % 2 === 1));
    assertEquals(controlIndexOf(BigInt(test.state.features), pairs), 2 * pairs);
    await test.send("VHOST_USER_SET_VRING_NUM", vringState(2 * pairs, 64));
    assertEquals(test.connection.isClosed, false);
    await test.send("VHOST_USER_SET_VRING_NUM", vringState(2 * pairs + 1, 64));
    assertEquals(test.connection.isClosed, true);
    const remedy = pairs < 16 ? "; more by queue_pairs of the port's policy" : "";
    assertEquals(
      await test.ended,
      `VHOST_USER_SET_VRING_NUM: vring ${2 * pairs + 1}: vrings are 0–${2 * pairs}, ` +
        `since ${pairs} queue pairs were offered${remedy}`,
    );
  });
}

Deno.test("a front-end that passes the configuration space on without MQ has one pair, unless the policy says a number", async () => {
  await using uml = await offered(16, VHOST_USER_PROTOCOL_F_MQ);
  assertEquals([await number(uml), await inConfig(uml), uml.state.queuePairs], [3, 1, 1]);
  await uml.startRings(0, 1);
  await uml.send("VHOST_USER_SET_VRING_NUM", vringState(2, 64));
  assertEquals([uml.running, uml.connection.isClosed], [[0, 1], false], "the control queue is the third ring");
  await using told = await offered(4, VHOST_USER_PROTOCOL_F_MQ);
  assertEquals([await number(told), await inConfig(told), told.state.queuePairs], [9, 4, 4]);
  await using alone = await offered(16, VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_CONFIG);
  assertEquals(await number(alone), 16, "whoever has a configuration space of its own knows how many there are");
});

Deno.test("a front-end keeps what it was offered, whatever the policy says meanwhile", async () => {
  await using test = await offered(4);
  await test.startRings(0, 1, 2, 3);
  test.link = { mac: "02:00:00:00:00:07", up: true, mtu: 1500, queuePairs: 1 };
  await test.send("VHOST_USER_RESET_DEVICE");
  assertEquals([await number(test), await inConfig(test), test.state.queuePairs], [9, 4, 4]);
  await test.startRings(0, 1, 2, 3);
  assertEquals(test.running, [0, 1, 3]);
  await using next = await offered(1);
  assertEquals([await number(next), await inConfig(next)], [3, 1]);
});

Deno.test("1 to 16 queue pairs can be set", () => {
  for (const queuePairs of [1, 16]) assertEquals(VfPatch.safeParse({ queuePairs }).data, { queuePairs });
  for (const queuePairs of [0, 17, 1.5, "4"]) {
    const message = VfPatch.safeParse({ queuePairs }).error?.issues[0]?.message;
    assertEquals(message, Number.isInteger(queuePairs) ? "from 1 to 16 queue pairs" : "must be a whole number");
  }
});
