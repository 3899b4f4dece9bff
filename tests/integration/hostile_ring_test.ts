/** hostile.md 1–11, 21 and 27 against the whole fabric, beside two honest guests that keep talking. */
import { assert, assertEquals } from "@std/assert";
import { socketPath } from "../../shared/api/mod.ts";
import { QUEUE_REASONS } from "../../shared/engine/mod.ts";
import type { RingAttack } from "../support/attack_kit.ts";
import { Bystanders } from "../support/bystanders.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, u64 } from "../support/front_end.ts";
import { frame } from "../support/mock_guest.ts";
import { PackedDriver } from "../support/packed_guest.ts";
import type { VirtqueueName } from "../support/formats.ts";
import { attack, ringAttacks } from "../support/ring_attacks.ts";
import { until } from "../support/wait.ts";
import { Wakeup } from "../support/wakeup.ts";
import { authorized } from "../support/token.ts";

// The engine alone meets all formats (tests/unit/hostile_ring_test.ts); here it is what is around it that matters.
for (const format of ["split", "packed"] as const) {
  Deno.test(`hostile rings (${format}): the queue stops with its reason in the API; all others go on`, async (t) => {
    await using fabric = await TestFabric.start(3);
    await using bystanders = await Bystanders.attach(fabric, format);
    for (const one of ringAttacks(format.startsWith("packed") ? "packed" : "split", "tx")) {
      await t.step(one.name, async () => {
        await attackFabric(fabric, format, one);
        await bystanders.check();
      });
    }
  });
}

/** Attacks from VF 2. */
async function attackFabric(fabric: TestFabric, format: VirtqueueName, one: RingAttack): Promise<void> {
  const evil = fabric.vf(2);
  await using front = FrontEnd.connectAs(format, evil.socket);
  const tx = front.guest.tx();
  if (one.beforeEnd !== undefined && tx instanceof PackedDriver) {
    tx.moveTo({ index: tx.size - one.beforeEnd, wrap: true });
  }
  await front.start();
  const { counter, reason } = one;
  const before = counter ? (await fabric.counters(2))[counter] ?? 0 : 0;
  attack(one, front.guest, "tx", { dst: fabric.vf(0).mac, src: evil.mac });
  front.kick();
  if (counter) {
    await until(`${counter} to count it`, async () => ((await fabric.counters(2))[counter] ?? 0) > before);
  } else {
    const queue = await until("the queue to stop", async () => {
      const { queues } = await fabric.get("/api/v1/vfs/2");
      return queues.find((one: { index: number; state: string }) => one.index === 1 && one.state === "error");
    });
    assertEquals(queue.reason, QUEUE_REASONS[reason ?? 0]);
  }
  // Its guest can reset the queue and go on.
  await front.stopVring(1);
  assertEquals(await front.startVring(1, tx.reset()), 0n);
  const sent = (await fabric.counters(2)).tx_frames ?? 0;
  front.guest.send([frame({ dst: fabric.vf(0).mac, src: evil.mac, etherType: 0x1234 })]);
  front.kick();
  await until("its next frame", async () => ((await fabric.counters(2)).tx_frames ?? 0) > sent);
}

/** A guest whose frames flicker between what it may send and what it may not, while the engine reads them. */
async function flicker(format: VirtqueueName): Promise<void> {
  await using fabric = await TestFabric.start(3, ["--spin-us", "2000"]);
  await using bystanders = await Bystanders.attach(fabric);
  const { mac: victimMac } = fabric.vf(0);
  const evil = fabric.vf(2);
  const spoofed = "02:de:ad:be:ef:01";
  await using front = await FrontEnd.connectAs(format, evil.socket, { queueSize: 256 }).start();
  const { guest } = front;
  const victim = bystanders.guests[0].guest;
  const honest = frame({ dst: victimMac, src: evil.mac, bytes: 200, etherType: 0x0800 });
  const lie = frame({ dst: victimMac, src: spoofed, bytes: 200, etherType: 0x0800 });
  const tagged = frame({ dst: victimMac, src: evil.mac, bytes: 200, tags: [{ vid: 9 }] });
  const tx = guest.tx();
  const at = (slot: number) => guest.heap + slot * 4096;
  const addr = (slot: number) => guest.iova(at(slot));
  const lengths = Array.from({ length: 16 }, (_, slot) => guest.writeFrame(at(slot), honest));
  const bytes = new Uint8Array(guest.view.buffer);
  let received = 0;
  const end = performance.now() + 3000;
  while (performance.now() < end) {
    victim.fill(32 - victim.posted());
    lengths.forEach((len, slot) => tx.add([{ addr: addr(slot), len }]));
    tx.publish();
    front.kick();
    // While the engine reads, the source address and the EtherType flicker.
    for (let flip = 0; tx.inFlight > 0 && flip < 20_000; flip++) {
      const slot = flip % 16;
      const version = [honest, lie, tagged][flip % 3] ?? honest;
      bytes.set(version.subarray(0, 18), at(slot) + 12);
      bytes.set(honest.subarray(0, 18), at(slot) + 12);
    }
    await until("the frames to be taken", () => tx.inFlight === 0, 10_000, 0);
    while (tx.popUsed());
    for (const got of victim.receive()) {
      received++;
      const source = Array.from(got.subarray(6, 12), (byte) => byte.toString(16).padStart(2, "0")).join(":");
      assertEquals(source, evil.mac, "a spoofed source address came through");
      assert(!(got[12] === 0x81 && got[13] === 0), "a tag came through");
    }
  }
  assert(received > 100, `${received} frames came through`);
  const counters = await fabric.counters(2);
  assert((counters.tx_spoofed ?? 0) + (counters.tx_vlan_denied ?? 0) > 0, "some lies were caught while they were told");
  await bystanders.check();
}

for (const format of ["split", "packed"] as const) {
  Deno.test(`double fetch (${format}): a guest that rewrites frames while they are read gets nothing past the checks`, () =>
    flicker(format));
}

Deno.test("a kick storm without work costs the neighbours nothing they notice, and the engine little", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using front = await FrontEnd.connect(fabric.vf(2).socket).start();
  const before = (await fabric.get("/api/v1/nic")).engine;
  const end = performance.now() + 1000;
  let kicks = 0;
  while (performance.now() < end) {
    for (let i = 0; i < 200; i++, kicks++) front.kick();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  const after = (await fabric.get("/api/v1/nic")).engine;
  const { queues } = await fabric.get("/api/v1/vfs/2");
  const { quarantineMs, kickOffences } = queues[1];
  assert(quarantineMs > 1 && kickOffences > 1, `${kickOffences} offences, ${quarantineMs} ms`);
  assertEquals([queues[0].quarantineMs, queues[0].kickOffences], [0, 0]);
  const heeded = after.spuriousKicksTotal - before.spuriousKicksTotal;
  assert(heeded > 0 && heeded < kicks / 2, `${heeded} of ${kicks} kicks were heeded`);
  await bystanders.check();
  const counters = await fabric.counters(2);
  assertEquals(counters.tx_frames, 0);
  // The storm is over: a real frame is seen at once.
  front.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac })]);
  front.kick();
  await until("the frame", async () => ((await fabric.counters(2)).tx_frames ?? 0) === 1);
});

for (const callKind of ["eventfd", "socket", "pipe"] as const) {
  Deno.test(`21 a full call ${callKind} that blocks its writer holds nobody, so its queue goes on`, async () => {
    await using fabric = await TestFabric.start(3);
    await using bystanders = await Bystanders.attach(fabric);
    await using front = await FrontEnd.connect(fabric.vf(2).socket, { callKind }).start();
    for (const wakeup of front.wakeups) wakeup.block();
    const tx = front.guest.tx();
    for (let round = 1; round <= 20; round++) {
      front.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac })]);
      front.kick();
      await until("the frame to be taken", () => tx.usedIdx === round);
      while (tx.popUsed());
      await bystanders.check(2);
    }
    const { queues } = await fabric.get("/api/v1/vfs/2");
    assertEquals(queues.map((queue: { state: string }) => queue.state), ["running", "running"]);
    // What it made of its descriptor is its own affair: when it reads, interrupts come again.
    for (const wakeup of front.wakeups) await until("the last wake-up", () => wakeup.take());
    front.guest.send([frame({ dst: fabric.vf(0).mac, src: fabric.vf(2).mac })]);
    front.kick();
    await until("an interrupt", () => front.takeCalls(1));
  });
}

Deno.test("21 calls and errs that block from the start freeze neither the NIC nor vhost", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using front = FrontEnd.connect(fabric.vf(2).socket);
  for (const wakeup of front.wakeups) wakeup.block();
  await front.start();
  using err = new Wakeup("eventfd");
  err.block();
  front.send("VHOST_USER_SET_VRING_ERR", u64(1n), [err.sent.number]);
  front.guest.tx().publish(500);
  front.kick();
  await bystanders.check();
  await fabric.patch(0, { qos: 0 });
  await using other = await FrontEnd.connect(socketPath(fabric.runDir, "uplink")).start();
  void other;
  await bystanders.check();
});

Deno.test("27 full error descriptors of one guest take no thread of the pool that everyone's events wait on", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const threads = () => [...Deno.readDirSync(`/proc/${fabric.pid("vhost")}/task`)].length;
  await using front = await FrontEnd.connect(fabric.vf(2).socket, { queuePairs: 16 }).start();
  const transmit = front.guest.queues.map((queue, index) => ({ queue, index })).filter(({ index }) => index % 2 === 1);
  const errs = transmit.map(() => new Wakeup("eventfd"));
  for (const [i, err] of errs.entries()) {
    err.block();
    front.send("VHOST_USER_SET_VRING_ERR", u64(BigInt(transmit[i]?.index ?? 0)), [err.sent.number]);
  }
  assertEquals(await front.acknowledged("VHOST_USER_SET_STATUS", u64(15n)), 0n);
  const before = threads();
  // All transmit queues stop, and vhost says so on each error descriptor.
  for (const { index, queue } of transmit) {
    queue.publish(queue.usedIdx + queue.size + 1);
    front.kick(index);
  }
  await until("all queues to stop", async () => {
    const { session } = await (await authorized(`${fabric.url("vhost")}/api/v1/ports/2`)).json();
    return session.vrings.filter((ring: { error?: string }) => ring.error !== undefined).length === errs.length;
  });
  assert(threads() < before + errs.length / 2, `vhost had ${before} threads, and has ${threads()}`);
  await bystanders.check();
  await using other = await FrontEnd.connect(socketPath(fabric.runDir, "uplink")).start();
  void other;
  for (const err of errs) {
    assert(err.take() >= 0xffff_ffff_ffff_fffen, "nobody has read its counter");
    err[Symbol.dispose]();
  }
});

Deno.test("memory limit: a guest that maps more than its share is refused with the reason, the others stay", async () => {
  await using fabric = await TestFabric.start(3, ["--vf-memory-mib", "8"]);
  await using bystanders = await Bystanders.attach(fabric);
  await using front = FrontEnd.connect(fabric.vf(2).socket, { bytes: 9 * 1024 ** 2 });
  await front.negotiate();
  const { memoryTable } = await import("../support/front_end.ts");
  const code = await front.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([front.region]), [
    front.memory.fd.number,
  ]);
  assertEquals(code, 1n);
  const { session } = await (await authorized(`${fabric.url("vhost")}/api/v1/ports/2`)).json();
  assert(
    /memory takes 10485760 bytes, .*: a VF may map at most 8388608/.test(session.lastRefusal),
    session.lastRefusal,
  );
  await bystanders.check();
});

Deno.test("a guest that never gives receive buffers back only loses its own frames", async () => {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  await using front = await FrontEnd.connect(fabric.vf(2).socket).start();
  const [sender] = bystanders.guests;
  for (let i = 0; i < 200; i++) {
    sender.guest.send([frame({ dst: fabric.vf(2).mac, src: fabric.vf(0).mac })]);
    sender.kick();
    await until("the buffer to come back", () => sender.guest.unsent() === 0);
  }
  // What is not dropped waits for it, within its limit (integration/limits_test.ts).
  const { rx_no_buffer = 0 } = await fabric.counters(2);
  const { limits: { buffered } } = await fabric.get("/api/v1/vfs/2");
  assertEquals(rx_no_buffer + buffered.used / 512, 200);
  await bystanders.check();
  assertEquals(front.guest.rx().usedIdx, 0);
});
