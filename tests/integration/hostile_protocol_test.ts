/** hostile.md 12–15 and 18: broken and hostile vhost-user front-ends. */
import { assert, assertEquals } from "@std/assert";
import { createMemfd } from "../../shared/os/mod.ts";
import { libc } from "../../shared/os/libc.ts";
import { Bystanders } from "../support/bystanders.ts";
import { type Descriptors, openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import { PROTOCOL_ATTACKS } from "../support/protocol_attacks.ts";
import { FrontEnd, memoryTable, singleRegion, u64 } from "../support/front_end.ts";
import { must } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { until, within } from "../support/wait.ts";
import { authorized } from "../support/token.ts";

async function lastEnd(fabric: TestFabric): Promise<string> {
  const vf = await fabric.get("/api/v1/vfs/2");
  return vf.attached ? "" : vf.lastDetach ?? "";
}

Deno.test("hostile front-ends: the connection ends with its reason, the next one is served, nothing leaks", async (t) => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const { nic = 0, vhost = 0 } = fabric.pids();
  {
    await using warm = await FrontEnd.connect(fabric.vf(2).socket).start();
    void warm;
  }
  await until("the VF to be free", async () => !(await fabric.get("/api/v1/vfs/2")).attached);
  const before = openDescriptors(nic, vhost);
  for (const { name, reason, attack } of PROTOCOL_ATTACKS) {
    await t.step(name, async () => {
      const front = FrontEnd.connect(fabric.vf(2).socket);
      try {
        await within(
          name,
          Promise.resolve(attack(front)).catch((error) => {
            // The back-end may close before the last message of an attack is out.
            if (error.name !== "BackEndClosed") throw error;
          }),
        );
        if (reason === "goes on") {
          assert((await front.ask("VHOST_USER_GET_FEATURES")) > 0n);
        } else {
          if (!front.socket.fd.closed) await front.closedByBackEnd();
          let told = "";
          await until(`${reason} in the VF's API`, async () => {
            told = await lastEnd(fabric);
            return reason.test(told);
          }, 3000).catch(() => assertEquals(told, String(reason)));
        }
      } finally {
        await front[Symbol.asyncDispose]();
      }
      await until("the VF to be free", async () => !(await fabric.get("/api/v1/vfs/2")).attached);
      await bystanders.check(2);
    });
  }
  await untilNoMoreDescriptors(before);
  assertEquals(fabric.pids(), { ...fabric.pids(), nic, vhost }, "no service had to be restarted");
});

Deno.test("a memory table may change while traffic runs: regions come and go, the rings stay", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using front = await FrontEnd.connect(fabric.vf(2).socket).start();
  const receiver = bystanders.guests[0].guest;
  for (let round = 0; round < 50; round++) {
    using extra = createMemfd("extra", 4 * 1024 ** 2);
    const added = { guestAddress: 1n << 40n, size: 4n << 20n, userAddress: 1n << 44n, mmapOffset: 0n };
    const sent = frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac, bytes: 100 + round, etherType: 0x88b5 });
    receiver.fill(1);
    front.guest.send([sent]);
    front.kick();
    if (round % 2 === 0) {
      assertEquals(await front.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(added), [extra.number]), 0n);
      assertEquals(await front.acknowledged("VHOST_USER_REM_MEM_REG", singleRegion(added)), 0n);
    } else {
      const fds = [front.memory.fd.number, extra.number];
      assertEquals(await front.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region, added]), fds), 0n);
      assertEquals(
        await front.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region]), fds.slice(0, 1)),
        0n,
      );
    }
    const [got] = await until("the frame", () => {
      const frames = receiver.receive();
      return frames.length > 0 && frames;
    });
    assertEquals(got, sent);
  }
  const { queues } = await fabric.get("/api/v1/vfs/2");
  assertEquals(queues.map((queue: { state: string }) => queue.state), ["running", "running"]);
});

Deno.test("rings stop when the region under them is removed, and go on when it is there again", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using front = await FrontEnd.connect(fabric.vf(2).socket).start();
  const running = async () => {
    const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/2`);
    return session.vrings.map(({ running, error }: { running: boolean; error?: string }) => error ?? running);
  };
  assertEquals(await front.acknowledged("VHOST_USER_REM_MEM_REG", singleRegion(front.region)), 0n);
  assertEquals(await running(), [false, false]);
  const file = [front.memory.fd.number];
  // At other addresses of the front-end's own the rings are not: they wait.
  const elsewhere = { ...front.region, userAddress: 0x1000n };
  assertEquals(await front.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(elsewhere), file), 0n);
  assertEquals(await running(), [false, false]);
  assertEquals(await front.acknowledged("VHOST_USER_REM_MEM_REG", singleRegion(elsewhere)), 0n);
  assertEquals(await front.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(front.region), file), 0n);
  assertEquals(await running(), [true, true]);
  await bystanders.check();
});

Deno.test("a memory file truncated under its mapping stops its guest alone (SIGBUS)", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const { nic } = fabric.pids();
  // A tmpfs file takes no seals, as DPDK's hugepage files do not.
  const path = await Deno.makeTempFile({ dir: "/dev/shm" });
  const bytes = 4 * 1024 ** 2;
  await Deno.truncate(path, bytes);
  const fd = libc().open(new TextEncoder().encode(`${path}\0`), 2);
  try {
    await using front = FrontEnd.connect(fabric.vf(2).socket);
    await front.negotiate();
    const backing = { ...front.region, guestAddress: 1n << 40n, userAddress: 1n << 44n };
    const fds = [front.memory.fd.number, fd];
    assertEquals(await front.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region, backing]), fds), 0n);
    await front.startVring(0);
    await front.startVring(1);
    assertEquals((await fabric.get("/api/v1/vfs/2")).memory.sealed, false);
    await Deno.truncate(path, 4096);
    front.guest.tx().add([{ addr: (1n << 40n) + 3n * 1024n * 1024n, len: 100 }]);
    front.guest.tx().publish();
    front.kick();
    const queue = await until("the queues to stop", async () => {
      const { queues } = await fabric.get("/api/v1/vfs/2");
      return queues.find((one: { state: string }) => one.state === "error");
    });
    assert(/truncated/.test(queue.reason), queue.reason);
    await bystanders.check();
  } finally {
    libc().close(fd);
    await Deno.remove(path);
  }
  assertEquals(fabric.pids().nic, nic, "the NIC lives");
});

Deno.test("--sealed-only refuses memory that could be truncated, and takes sealed memory", async () => {
  await using fabric = await TestFabric.start(1, ["--sealed-only"]);
  const path = await Deno.makeTempFile({ dir: "/dev/shm" });
  await Deno.truncate(path, 4 * 1024 ** 2);
  const fd = libc().open(new TextEncoder().encode(`${path}\0`), 2);
  try {
    await using front = FrontEnd.connect(fabric.vf(0).socket);
    await front.negotiate();
    assertEquals(await front.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region]), [fd]), 1n);
    assertEquals(
      await front.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region]), [front.memory.fd.number]),
      0n,
    );
  } finally {
    libc().close(fd);
    await Deno.remove(path);
  }
});

Deno.test("a front-end that goes away after any message of the handshake leaves nothing behind", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const { nic = 0, vhost = 0 } = fabric.pids();
  let before: Descriptors = new Map();
  for (let repeat = 0; repeat < 3; repeat++) {
    for (let messages = 0; messages <= 16; messages++) {
      const front = FrontEnd.connect(fabric.vf(2).socket);
      const send = front.raw.bind(front);
      let left = messages;
      // What kill -9 does: the socket closes between two messages, with replies unread.
      front.raw = (bytes, fds) => {
        if (left-- <= 0) throw new Error("killed");
        send(bytes, fds);
      };
      await front.start().catch((error) => {
        if (error.message !== "killed") throw error;
      });
      await front[Symbol.asyncDispose]();
      await until("the VF to be free", async () => !(await fabric.get("/api/v1/vfs/2")).attached);
    }
    if (repeat === 0) before = openDescriptors(nic, vhost);
  }
  await untilNoMoreDescriptors(before);
  await bystanders.check();
});

Deno.test("10,000 connections leave no descriptor behind", async () => {
  await using fabric = await TestFabric.start(1);
  const { nic = 0, vhost = 0 } = fabric.pids();
  const connect = async () => {
    await using front = FrontEnd.connect(fabric.vf(0).socket, { bytes: 1024 ** 2, queueSize: 2 });
    await front.negotiate();
    front.send("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region]), [front.memory.fd.number]);
    front.send("VHOST_USER_SET_VRING_CALL", u64(0n), [front.calls[0]?.number ?? -1]);
    await front.ask("VHOST_USER_GET_FEATURES");
  };
  await connect();
  const before = openDescriptors(nic, vhost);
  for (let i = 0; i < 10_000; i++) await connect();
  await untilNoMoreDescriptors(before);
  const state = await (await authorized(`${fabric.url("nic")}/api/v1/state`)).json();
  assertEquals(state.engine.arenaFreeBytes > 4e9, true, "all windows came back");
});
