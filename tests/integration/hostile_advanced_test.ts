/** hostile.md for guests that drive their VF themselves: their rings, their doorbells, and the socket they come by. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { DeviceClient, DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import { QUEUE_REASONS } from "../../shared/engine/mod.ts";
import { createEventFd, createMemfd, Reactor } from "../../shared/os/mod.ts";
import { ADVANCED_ATTACKS } from "../support/advanced_attacks.ts";
import { Bystanders } from "../support/bystanders.ts";
import { DirectGuest } from "../support/direct_guest.ts";
import { TestFabric } from "../support/fabric.ts";
import { must } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { Wakeup } from "../support/wakeup.ts";
import { until, within } from "../support/wait.ts";

Deno.test("hostile advanced rings in the fabric: the queue stops with its reason; all others go on", async (t) => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const target = { dst: fabric.vf(0).mac, src: fabric.vf(2).mac };
  for (const { name, reason, counter, attack } of ADVANCED_ATTACKS) {
    await t.step(name, async () => {
      await using evil = await DirectGuest.attach(fabric, 2);
      const before = counter ? (await fabric.counters(2))[counter] ?? 0 : 0;
      attack(evil.guest, target);
      evil.signal();
      if (counter) {
        await until(`${counter} to count it`, async () => ((await fabric.counters(2))[counter] ?? 0) > before);
      } else {
        const queue = await until("the queue to stop", async () => {
          const { queues } = await fabric.get("/api/v1/vfs/2");
          return queues.find((one: { index: number; state: string }) => one.index === 1 && one.state === "error");
        });
        assertEquals(queue.reason, QUEUE_REASONS[reason ?? 0]);
        await until("its owner to be told", () => evil.events.some((event) => event.event === "queueError"));
        // It can reset the queue and go on.
        await evil.device.request({ op: "queueStop", index: 1 });
        evil.guest.tx().tail = 0;
        evil.guest.tx().doorbell();
        await evil.start(1);
        evil.guest.send([frame(target)]);
        evil.signal();
        await until("an honest frame", () => evil.guest.unsent() === 0);
      }
      await bystanders.check();
    });
  }
});

Deno.test("double fetch: frames that flicker get nothing past the checks", async () => {
  await using fabric = await TestFabric.start(3, ["--spin-us", "2000"]);
  await using bystanders = await Bystanders.attach(fabric);
  const [victimMac, mac] = [fabric.vf(0).mac, fabric.vf(2).mac];
  await using evil = await DirectGuest.attach(fabric, 2);
  const victim = bystanders.guests[0].guest;
  const honest = frame({ dst: victimMac, src: mac, bytes: 200, etherType: 0x0800 });
  const lie = frame({ dst: victimMac, src: "02:de:ad:be:ef:01", bytes: 200, etherType: 0x0800 });
  const tx = evil.guest.tx();
  const bytes = new Uint8Array(evil.memory.view.buffer);
  let received = 0;
  const end = performance.now() + 2000;
  while (performance.now() < end) {
    victim.fill(32 - victim.posted());
    const first = tx.tail;
    evil.guest.send(Array.from({ length: 16 }, () => honest));
    evil.signal();
    for (let flip = 0; evil.guest.unsent() > 0 && flip < 5000; flip++) {
      const slot = (first + flip % 16) % tx.size;
      const at = Number(tx.read(slot)[0] - evil.guest.options.iova);
      if (at < 0 || at > bytes.length - 300) continue;
      bytes.set((flip % 2 === 0 ? lie : honest).subarray(0, 18), at);
      bytes.set(honest.subarray(0, 18), at);
    }
    for (const got of victim.receive()) {
      if (got[13] === 0xb5) continue;
      received++;
      const source = Array.from(got.subarray(6, 12), (byte) => byte.toString(16).padStart(2, "0")).join(":");
      assertEquals(source, mac, "a spoofed source address came through");
    }
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  assert(received > 100, `${received} frames came through`);
  assert(((await fabric.counters(2)).tx_spoofed ?? 0) > 0, "some were read while they lied");
  await bystanders.check();
});

Deno.test("the socket for guests: a token, good once, for one VF, and nothing else", async (t) => {
  await using fabric = await TestFabric.start(2);
  await using reactor = new Reactor();
  const connect = () => DeviceClient.connect(`${fabric.runDir}/passthrough.sock`, reactor);
  const refused = async (device: DeviceClient, body: RequestInput, code: string, fds: number[] = []) => {
    const error = await assertRejects(() => device.request(body, fds), DeviceRefusal);
    assertEquals((error as DeviceRefusal).code, code, (error as Error).message);
  };
  const attach = (vf: number | "pf" | "uplink", token?: string): RequestInput => (
    { op: "attach", vf, owner: "x", ...(token === undefined ? {} : { token }) }
  );
  const whileHeld = <T>(vf: number, use: (token: string) => Promise<T>) => DirectGuest.whileHeld(fabric, vf, use);
  await t.step("without a token, with a wrong one, with another VF's", async () => {
    using device = connect();
    await whileHeld(1, async (other) => {
      for (const token of [undefined, "", "00".repeat(16), other]) {
        await refused(device, attach(0, token), "bad-token");
      }
      // The attempt has used it up for its own VF too.
      await refused(device, attach(1, other), "bad-token");
    });
  });
  await t.step("an owner that would write to the operator's terminal", async () => {
    using device = connect();
    for (const owner of ["\x1b[2J", "a\nb", "\u202etseug"]) {
      await whileHeld(0, (token) => refused(device, { op: "attach", vf: 0, owner, token }, "bad-request"));
    }
  });
  await t.step("what is wrong with a request is said in one line, whatever it has", async () => {
    using device = connect();
    const body = { op: "announce", vf: 0, mac: "01:00:00:00:00:01", "a\nb": 1 } as RequestInput;
    const { message } = await assertRejects(() => device.request(body), DeviceRefusal);
    assertEquals([message.includes("mac: is a unicast MAC address"), /\p{Cc}/u.test(message)], [true, false], message);
  });
  await t.step("a token is good once, and while its change lasts", async () => {
    using device = connect();
    const kept = await whileHeld(0, (token) => Promise.resolve(token));
    await refused(device, attach(0, kept), "bad-token");
    using first = connect();
    using second = connect();
    await whileHeld(0, async (token) => {
      await refused(device, attach(0, kept), "bad-token");
      await first.request(attach(0, token));
      await refused(second, attach(0, token), "bad-token");
    });
    await whileHeld(0, (token) => refused(second, attach(0, token), "vf-in-use"));
    await whileHeld(0, (token) => refused(first, attach(0, token), "attached"));
  });
  await t.step("the PF's pool, the uplink, and looking on", async () => {
    using device = connect();
    for (const vf of ["pf", "uplink"] as const) {
      await whileHeld(0, (token) => refused(device, attach(vf, token), "bad-token"));
    }
    await refused(device, { op: "watch" }, "not-allowed");
    for (const body of [{ op: "region", name: "registers" }, { op: "resume" }, { op: "detach" }] as RequestInput[]) {
      await refused(device, body, "not-attached");
    }
  });
  await t.step("queues that cannot be", async () => {
    await using guest = await DirectGuest.attach(fabric, 0);
    const { device } = guest;
    using eventfd = createEventFd();
    using file = createMemfd("not an eventfd", 4096);
    await device.request({ op: "queueStop", index: 1 });
    const start = (change: Record<string, unknown>) => ({
      ...{ op: "queueStart" as const, index: 1, flavour: "advanced" as const, size: 64, desc: guest.guest.iova(4096) },
      ...{ base: 0, kick: true, call: false },
      ...change,
    });
    const cases: [Record<string, unknown>, string][] = [
      [{ size: 0 }, "bad-size"],
      [{ size: 12 }, "bad-size"],
      [{ size: 8192 }, "bad-size"],
      [{ packetBytes: 100 }, "bad-size"],
      [{ packetBytes: 1 << 20 }, "bad-size"],
      [{ headerBytes: 63 }, "bad-size"],
      [{ headerBytes: 4096 }, "bad-size"],
      [{ index: 32 }, "bad-queue"],
      [{ base: 64 }, "bad-ring"],
      [{ desc: 0n }, "bad-ring"],
      [{ desc: guest.guest.iova(4096) + 1n }, "bad-ring"],
      [{ desc: guest.guest.options.iova + BigInt(guest.guest.options.bytes) - 64n }, "bad-ring"],
    ];
    for (const [change, code] of cases) await refused(device, start(change), code, [eventfd.number]);
    await refused(device, start({}), "bad-fd", [file.number]);
    for (const kind of ["socket", "pipe"] as const) {
      using call = new Wakeup(kind);
      await refused(device, start({ call: true }), "bad-fd", [eventfd.number, call.sent.number]);
      await refused(device, { op: "queueCall", index: 0, call: true }, "bad-fd", [call.sent.number]);
    }
    guest.guest.tx().doorbell(1000);
    await refused(device, start({}), "bad-ring", [eventfd.number]);
  });
  await t.step(
    "one process that waits for VFs in vain, on more and more connections, keeps no others out",
    async () => {
      const waiting: DeviceClient[] = [];
      for (let i = 0; i < 64; i++) {
        const device = connect();
        waiting.push(device);
        // It is there once it has been answered.
        await refused(device, { op: "resume" }, "not-attached");
      }
      using one = connect();
      await within("the one too many to be closed", one.closed);
      waiting.pop()?.[Symbol.dispose]();
      await until("room for another", async () => {
        using device = connect();
        return await device.request({ op: "resume" }).catch((error: DeviceRefusal) => error.code === "not-attached");
      });
      for (const device of waiting) device[Symbol.dispose]();
    },
  );
  await t.step("hardware that the VF does not present", async () => {
    await fabric.patch(0, { hardware: "virtio" });
    const error = await assertRejects(() => DirectGuest.attach(fabric, 0), DeviceRefusal);
    assertEquals((error as DeviceRefusal).code, "wrong-hardware");
    await fabric.patch(0, { hardware: "any" });
  });
});

Deno.test("a guest that has given its VF back holds nothing: its page of doorbells is nobody's", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using old = await DirectGuest.attach(fabric, 2);
  await old.device.request({ op: "detach" });
  await using next = await DirectGuest.attach(fabric, 2);
  next.guest.fill(8);
  for (let i = 0; i < 20; i++) {
    for (let at = 0; at < 4096; at += 4) {
      old.guest.tx().registerView.setUint32(at, crypto.getRandomValues(new Uint32Array(1))[0] ?? 0);
    }
    old.signal();
    next.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac })]);
    next.signal();
    await until("the frame to be sent", () => next.guest.unsent() === 0);
  }
  const { queues } = await must(`${fabric.info.api}/api/v1/vfs/2`);
  assertEquals(queues.map(({ state }: { state: string }) => state), ["running", "running"]);
  await bystanders.check();
});

Deno.test("an owner of advanced rings that dies leaves nothing behind: its VF is free at once", async () => {
  await using fabric = await TestFabric.start(2);
  const before = (await must(`${fabric.info.api}/api/v1/nic`)).engine.arenaFreeBytes;
  for (let i = 0; i < 20; i++) {
    const guest = await DirectGuest.attach(fabric, 0);
    guest.guest.fill(8);
    await guest[Symbol.asyncDispose]();
    await until("the VF to be free", async () => !(await must(`${fabric.info.api}/api/v1/vfs/0`)).attached);
  }
  assertEquals((await must(`${fabric.info.api}/api/v1/nic`)).engine.arenaFreeBytes, before);
});

Deno.test("a hold that nobody ends is ended by the NIC, and what it held is delivered", async () => {
  await using fabric = await TestFabric.start(2);
  await using bystanders = await Bystanders.attach(fabric);
  await bystanders.check();
  const [sender, receiver] = bystanders.guests;
  await must(`${fabric.url("nic")}/api/v1/vfs/1/hold`, "POST", { deadlineMs: 1000 });
  receiver.guest.fill(16);
  const sent = Array.from(
    { length: 8 },
    (_, i) => frame({ dst: fabric.vf(1).mac, src: fabric.vf(0).mac, bytes: 60 + i }),
  );
  sender.guest.send(sent);
  sender.kick();
  await until("the frames to be taken", () => sender.guest.unsent() === 0);
  assertEquals((await must(`${fabric.url("nic")}/api/v1/state`)).vfs[1].held, true);
  const got = receiver.guest.receive();
  assertEquals(got, []);
  await until("the frames", () => {
    got.push(...receiver.guest.receive());
    return got.length >= sent.length;
  });
  assertEquals(got, sent);
  await bystanders.check();
});

Deno.test("frames that are held while their VF leaves its VLAN are not delivered in the next one", async () => {
  await using fabric = await TestFabric.start(2);
  await using bystanders = await Bystanders.attach(fabric);
  const [sender, receiver] = bystanders.guests;
  const { mac } = fabric.vf(1);
  await DirectGuest.whileHeld(fabric, 1, async () => {
    const before = (await fabric.counters(0)).tx_frames ?? 0;
    sender.guest.send(Array.from({ length: 5 }, () => frame({ dst: mac, src: fabric.vf(0).mac })));
    sender.kick();
    await until("the frames to be sent", async () => ((await fabric.counters(0)).tx_frames ?? 0) === before + 5);
    await fabric.patch(1, { nativeVlan: 7 });
  });
  await until("them to be counted", async () => (await fabric.counters(1)).rx_no_queue === 5);
  assertEquals(receiver.guest.receive(), []);
});
