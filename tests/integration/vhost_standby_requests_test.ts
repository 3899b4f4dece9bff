/**
 * vhost's process killed while a front-end sends requests that most seldom send, many in a row before it reads an answer,
 * with and without descriptors beside them: each is done once, answered once, in its turn, and has its own descriptors.
 */
import { assertEquals } from "@std/assert";
import { createMemfd, type Fd } from "../../shared/os/mod.ts";
import { HEADER_BYTES, type RequestName, VHOST_USER_BACKEND_CONFIG_CHANGE_MSG } from "../../shared/vhost_user/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, singleRegion, u64, vringState } from "../support/front_end.ts";
import { must, setMode } from "../support/guests.ts";
import { activeOf } from "../support/standby.ts";
import { until } from "../support/wait.ts";
import { Wakeup } from "../support/wakeup.ts";

const KILLS = Number(Deno.env.get("STANDBY_KILLS") ?? 4);
const NO_FD = 0x100n;
const MAC_BYTES = 6;

/** Header and place of what is asked of the configuration space, and what is written there. */
function configAt(offset: number, bytes: number, data: readonly number[] = []): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(new Uint32Array([offset, bytes, 0]).buffer);
  return new Uint8Array([...header, ...data, ...new Array(bytes - data.length).fill(0)]);
}

/** What is sent in a row, and what has to come back: a u64, or the bytes behind a header of the configuration space. */
type Row = [RequestName, Uint8Array, Fd[], bigint | number[]][];

for (const dataPath of [undefined, "copy"] as const) {
  const how = dataPath === undefined ? "as they are" : `emulated by ${dataPath}`;
  Deno.test(`rings ${how}: requests in a row, each of its own kind, are done once however often vhost is killed`, async () => {
    await using fabric = await TestFabric.start(1, ["--standby"]);
    if (dataPath) await setMode(fabric, 0, { mode: "emulated", dataPath });
    await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
    using channel = new Wakeup("socket");
    using files = new DisposableStack();
    const fds = Array.from({ length: 3 }, () => createMemfd("ringfabric-test", 1 << 20));
    for (const fd of fds) files.use(fd);
    const region = (n: number) =>
      singleRegion({
        guestAddress: BigInt(n + 2) << 40n,
        size: 1n << 20n,
        userAddress: BigInt(n + 2) << 40n,
        mmapOffset: 0n,
      });
    const mac = fabric.vf(0).mac.split(":").map((byte) => parseInt(byte, 16));
    const call = () => [front.calls[0] as Fd];
    const row = (turn: number): Row => [
      ["VHOST_USER_SET_STATUS", u64(BigInt(turn & 0x7f) | 0x80n), [], 0n],
      ["VHOST_USER_SET_VRING_CALL", u64(0n), call(), 0n],
      // Without a descriptor, in front of one with another one.
      ["VHOST_USER_REM_MEM_REG", region(turn % 3), [], 0n],
      ["VHOST_USER_ADD_MEM_REG", region(turn % 3), [fds[turn % 3] as Fd], 0n],
      ["VHOST_USER_SET_VRING_ERR", u64(NO_FD), [], 0n],
      ["VHOST_USER_GET_CONFIG", configAt(0, MAC_BYTES), [], mac],
      ["VHOST_USER_SET_BACKEND_REQ_FD", new Uint8Array(), [channel.sent], 0n],
      ["VHOST_USER_GET_STATUS", new Uint8Array(), [], BigInt(turn & 0x7f) | 0x80n],
      ["VHOST_USER_SET_VRING_ERR", u64(1n), call(), 0n],
      ["VHOST_USER_SET_CONFIG", configAt(0, MAC_BYTES, mac), [], 0n],
      ["VHOST_USER_SET_LOG_FD", u64(0n), call(), 1n],
      ["VHOST_USER_NET_SET_MTU", u64(1500n), [], 0n],
      ["VHOST_USER_SET_VRING_ENABLE", vringState(0, turn & 1), [], 0n],
      ["VHOST_USER_GET_MAX_MEM_SLOTS", new Uint8Array(), [], 62n],
    ];
    let isOver = false;
    let asked = 0;
    const asking = (async () => {
      for (; !isOver; asked++) {
        const wanted = row(asked);
        for (const [name, payload, fds] of wanted) front.send(name, payload, fds.map(({ number }) => number), true);
        for (const [name, , , value] of wanted) {
          const answer = await front.reply();
          const said = typeof value === "bigint"
            ? answer.getBigUint64(0, true)
            : [...new Uint8Array(answer.buffer)].slice(HEADER_BYTES);
          assertEquals([asked, name, said], [asked, name, value]);
        }
      }
    })();
    asking.catch(() => {});
    for (let kill = 0; kill < KILLS; kill++) {
      const active = await activeOf(fabric, "vhost");
      const before = asked;
      await until("rows to be answered", () => asked > before + 1, 10_000);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 20));
      Deno.kill(active, "SIGKILL");
      const then = asked;
      await Promise.race([asking, until("the other process to answer", () => asked > then + 2, 10_000)]);
    }
    isOver = true;
    await asking;
    // The channel that was given before the last death is the one that is used.
    await fabric.patch(0, { mtu: 1400 });
    await until("the change to be told", () => channel.read(HEADER_BYTES)[0] === VHOST_USER_BACKEND_CONFIG_CHANGE_MSG);
    const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/0`);
    assertEquals(session.memoryRegions, 1 + fds.length);
  });
}
