/**
 * The vhost-user session: what is offered, what has to be negotiated first, which requests are answered and which
 * acknowledged, and what ends the connection.
 */
import { assertEquals } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import {
  MEM_SLOTS_MAX,
  type RequestName,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_PROTOCOL_F_STATUS,
} from "../../shared/vhost_user/mod.ts";
import { VIRTIO_F_VERSION_1, VIRTIO_NET_F_MQ } from "../../shared/layout/virtio.ts";
import { memoryTable, PROTOCOL_FEATURES, region, TestSession, u64, vringState } from "../support/test_session.ts";

const has = (bits: bigint, bit: number) => ((bits >> BigInt(bit)) & 1n) === 1n;

Deno.test("features are offered, and those that are chosen are shown", async () => {
  await using test = new TestSession();
  const offered = (await test.ask("VHOST_USER_GET_FEATURES"))?.getBigUint64(0, true) ?? 0n;
  for (const bit of [VIRTIO_F_VERSION_1, VIRTIO_NET_F_MQ, VHOST_USER_F_PROTOCOL_FEATURES]) {
    assertEquals(has(offered, bit), true);
  }
  const protocol = (await test.ask("VHOST_USER_GET_PROTOCOL_FEATURES"))?.getBigUint64(0, true) ?? 0n;
  for (const bit of [VHOST_USER_PROTOCOL_F_MQ, VHOST_USER_PROTOCOL_F_STATUS]) assertEquals(has(protocol, bit), true);
  const chosen = 1n << BigInt(VIRTIO_F_VERSION_1);
  await test.send("VHOST_USER_SET_FEATURES", u64(chosen));
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(1n));
  assertEquals([test.state.features, test.state.protocolFeatures], ["0x100000000", "0x1"]);
});

Deno.test("features may be negotiated before or after protocol features, and again", async () => {
  await using test = new TestSession();
  await test.send("VHOST_USER_SET_FEATURES", u64(0n));
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
  await test.send("VHOST_USER_SET_FEATURES", u64(1n << 30n));
  await test.send("VHOST_USER_SET_OWNER");
  assertEquals([test.state.features, test.connection.isClosed], ["0x40000000", false]);
});

/** What a front-end must not send, and why its connection ends. */
const BROKEN: [string, RequestName, Uint8Array<ArrayBuffer>, string][] = [
  [
    "a feature that was not offered",
    "VHOST_USER_SET_FEATURES",
    u64(1n << 63n),
    "features 0x8000000000000000 were not offered",
  ],
  [
    "a protocol feature that was not offered",
    "VHOST_USER_SET_PROTOCOL_FEATURES",
    u64(1n << 63n),
    "protocol features 0x8000000000000000 were not offered",
  ],
  ["a status of more than a byte", "VHOST_USER_SET_STATUS", u64(0x100n), "device status 0x100 has more than 8 bits"],
  [
    "a vring that is none",
    "VHOST_USER_SET_VRING_NUM",
    vringState(33, 64),
    "vring 33: vrings are 0–32, since 16 queue pairs were offered",
  ],
  ["an enable that is neither", "VHOST_USER_SET_VRING_ENABLE", vringState(0, 2), "enable 2: it is 0 or 1"],
  ["a dirty log without a file", "VHOST_USER_SET_LOG_BASE", u64(0x1000n, 0n), "no descriptor came"],
];

for (const [what, name, payload, reason] of BROKEN) {
  Deno.test(`${what} ends the connection, also if an acknowledgement was asked for`, async () => {
    await using test = await TestSession.start();
    assertEquals(await test.acknowledged(name, payload), undefined);
    assertEquals(await test.ended, `${name}: ${reason}`);
    assertEquals(test.connection.isClosed, true);
  });
}

Deno.test("a descriptor for being told of the log is refused, closed, and ends no session", async () => {
  await using test = await TestSession.start();
  const refusal =
    "VHOST_USER_SET_LOG_FD: this back-end tells nobody of writes to the log: look into it without being told";
  assertEquals(await test.acknowledged("VHOST_USER_SET_LOG_FD", u64(0n), [test.eventFd()]), 1n);
  assertEquals([test.state.lastRefusal, test.connection.isClosed], [refusal, false]);
  await test.send("VHOST_USER_SET_LOG_FD", u64(0n), [test.eventFd()]);
  assertEquals(await test.acknowledged("VHOST_USER_SET_OWNER"), 0n, "it goes on");
});

Deno.test("requests need their protocol feature", async (t) => {
  const requests: [RequestName, Uint8Array<ArrayBuffer>?][] = [
    ["VHOST_USER_RESET_DEVICE"],
    ["VHOST_USER_GET_MAX_MEM_SLOTS"],
    ["VHOST_USER_ADD_MEM_REG", new Uint8Array(40)],
    ["VHOST_USER_REM_MEM_REG", new Uint8Array(40)],
    ["VHOST_USER_SET_STATUS", u64(1n)],
    ["VHOST_USER_GET_STATUS"],
  ];
  for (const [name, payload] of requests) {
    await t.step(name, async () => {
      await using test = new TestSession();
      await test.send(name, payload);
      assertEquals(await test.ended, `${name}: ${name} before its protocol feature was negotiated`);
    });
  }
});

// Answers and acknowledgements -----------------------------------------------------------------------------------

Deno.test("requests with an answer are answered once, whether or not an acknowledgement is asked for", async () => {
  await using test = await TestSession.start();
  const answers: [RequestName, bigint][] = [
    ["VHOST_USER_GET_QUEUE_NUM", 33n],
    ["VHOST_USER_GET_MAX_MEM_SLOTS", BigInt(MEM_SLOTS_MAX)],
    ["VHOST_USER_GET_STATUS", 0n],
  ];
  for (const [name, value] of answers) {
    for (const needReply of [false, true]) {
      test.connection.replies.length = 0;
      await test.send(name, undefined, [], needReply);
      assertEquals(test.connection.replies.map(([name, view]) => [name, view.getBigUint64(0, true)]), [[name, value]]);
    }
  }
});

Deno.test("other requests are acknowledged if that is asked for, and was agreed on", async () => {
  await using test = new TestSession();
  await test.send("VHOST_USER_SET_OWNER", undefined, [], true);
  assertEquals(test.connection.replies, []);
  await test.send("VHOST_USER_SET_PROTOCOL_FEATURES", u64(PROTOCOL_FEATURES));
  await test.send("VHOST_USER_SET_OWNER");
  assertEquals(test.connection.replies, []);
  assertEquals(await test.acknowledged("VHOST_USER_SET_OWNER"), 0n);
  assertEquals(await test.acknowledged("VHOST_USER_SET_VRING_ENABLE", vringState(0, 0)), 0n);
});

Deno.test("what the NIC refuses is told to a front-end that asks, and the connection goes on", async () => {
  await using test = await TestSession.start();
  const refusal = new DeviceRefusal("unsealed", "region 0 could be truncated: seal it");
  test.fail("dmaSet", refusal);
  const file = test.memoryFile();
  assertEquals(await test.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([region(2)]), [file]), 1n);
  assertEquals(test.state.lastRefusal, "VHOST_USER_SET_MEM_TABLE: region 0 could be truncated: seal it");
  assertEquals([test.state.memoryRegions, test.connection.isClosed], [1, false], "the table before is in force");
  assertEquals(await test.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([region(2)]), [file]), 0n);
});

Deno.test("a front-end that does not ask would believe that it was granted: its connection ends", async () => {
  await using test = await TestSession.start();
  test.fail("dmaSet", new DeviceRefusal("unsealed", "region 0 could be truncated: seal it"));
  await test.setMemory(2);
  assertEquals(await test.ended, "VHOST_USER_SET_MEM_TABLE: region 0 could be truncated: seal it");
});

// The end --------------------------------------------------------------------------------------------------------

Deno.test("a front-end that goes away leaves nothing behind, and the backend is told why", async () => {
  await using test = await TestSession.start();
  await test.startRings(0, 1);
  assertEquals(await test.end(), "the front-end closed the connection");
  assertEquals(test.log, ["nic: release (the front-end closed the connection)"]);
  assertEquals(test.state.memoryRegions, 0);
});

Deno.test("a front-end whose VF is somebody else's is told so by its connection's end", async () => {
  const inUse = new DeviceRefusal("vf-in-use", "vf 3 is driven by another vhost");
  await using test = new TestSession("passthrough", { attach: inUse });
  assertEquals(await test.ended, "vf 3 is driven by another vhost");
  assertEquals(test.connection.isClosed, true);
});

Deno.test("a port that is closed ends its session", async () => {
  await using test = await TestSession.start();
  test.session.close();
  assertEquals(await test.ended, "the front-end closed the connection");
});

Deno.test("descriptors that no message wants are closed", async () => {
  await using test = await TestSession.start();
  await test.send("VHOST_USER_SET_OWNER", undefined, [test.memoryFile(), test.eventFd()]);
  await test.send("VHOST_USER_REM_MEM_REG", new Uint8Array(40), [test.memoryFile()]);
});
