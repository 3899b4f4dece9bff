/** hostile.md for advanced rings, against the engine alone; and what the flavour does when nobody is hostile. */
import { assertEquals } from "@std/assert";
import { ADV_RXD_HDRLEN_SHIFT, ADV_RXD_SPH } from "../../shared/layout/advanced.ts";
import { BAD_ADDRESS, BAD_TAIL } from "../../shared/layout/nic.ts";
import { ADVANCED_ATTACKS } from "../support/advanced_attacks.ts";
import { txMeta } from "../support/advanced_guest.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

/** Three VFs: 0 (advanced) and 1 (virtqueues) are honest, 2 attacks. */
function setUp() {
  const rig = new EngineRig(3);
  const [a, b, evil] = [rig.attachAdvanced(0), rig.attach(1), rig.attachAdvanced(2)];
  for (const guest of [a, b, evil]) guest.fill(16);
  return { rig, a, b, evil };
}

function checkNeighbours({ rig, a, b }: ReturnType<typeof setUp>): void {
  const there = frame({ dst: rigMac(1), src: rigMac(0), bytes: 300 });
  a.send([there]);
  rig.run();
  assertEquals(b.receive(), [there]);
  rig.checkCanaries();
}

// A cold queue takes the general path; a warm one has a run, and the fast path meets the attack first.
for (const warm of [false, true]) {
  for (const { name, reason, counter, attack } of ADVANCED_ATTACKS) {
    Deno.test(`hostile advanced ring ${name}${warm ? ", on the fast path" : ""}`, () => {
      const set = setUp();
      const target = { dst: rigMac(0), src: rigMac(2) };
      const honest = warm ? 2 : 0;
      for (let i = 0; i < honest; i++) {
        set.evil.send([frame({ ...target, etherType: 0x1234 })]);
        set.rig.run();
      }
      assertEquals(set.a.receive().length, honest);
      attack(set.evil, target);
      set.rig.run();
      assertEquals(set.rig.error(2, 1), reason ?? 0);
      if (counter) {
        assertEquals(set.rig.counters(2)[counter], 1);
        assertEquals(set.evil.unsent(), 0, "its descriptors came back");
      }
      assertEquals(set.a.receive(), []);
      checkNeighbours(set);
    });
  }
}

Deno.test("hostile advanced ring: receive doorbells and buffers that cannot be stop the receiver, not the sender", () => {
  for (
    const [reason, break_] of [
      [BAD_TAIL, (g: ReturnType<typeof setUp>["evil"]) => g.rx().doorbell(g.rx().size)],
      [BAD_ADDRESS, (g: ReturnType<typeof setUp>["evil"]) => g.rx().write(0, 0x10000n, 0n)],
      [
        BAD_ADDRESS,
        (g: ReturnType<typeof setUp>["evil"]) => g.rx().write(0, g.options.iova + BigInt(g.options.bytes) - 2047n, 0n),
      ],
    ] as const
  ) {
    const set = setUp();
    break_(set.evil);
    set.a.send([frame({ dst: rigMac(2), src: rigMac(0) })]);
    set.rig.run();
    assertEquals(set.rig.error(2, 0), reason);
    assertEquals(set.rig.counters(2).rx_queue_error, 1);
    assertEquals(set.a.unsent(), 0);
    checkNeighbours(set);
  }
});

Deno.test("hostile advanced ring: what the guest writes into the device's registers changes nothing", () => {
  const set = setUp();
  for (const value of [0, 1, 7, 63, 64, 0xffff_ffff]) {
    for (const offset of [64, 68]) set.rig.view.setUint32(set.evil.tx().registers + offset, value, true);
    const sent = frame({ dst: rigMac(0), src: rigMac(2), bytes: 100 });
    set.evil.send([sent]);
    set.rig.run();
    assertEquals(set.a.receive(), [sent]);
  }
  checkNeighbours(set);
});

Deno.test("frames longer than a buffer take several descriptors, from and to advanced rings", () => {
  const rig = new EngineRig(3);
  const [a, b, c] = [rig.attachAdvanced(0), rig.attachAdvanced(1), rig.attach(2, { bufferBytes: 16384 })];
  for (const guest of [a, b]) guest.fill(32);
  c.fill(8);
  for (const bytes of [2047, 2048, 2049, 4096, 9014]) {
    const sent = frame({ dst: rigMac(1), src: rigMac(0), bytes });
    a.send([sent]);
    rig.run();
    assertEquals(b.receive(), [sent]);
    const over = frame({ dst: rigMac(2), src: rigMac(0), bytes });
    a.send([over]);
    rig.run();
    assertEquals(c.receive(), [over]);
    for (const guest of [a, b]) guest.fill(8);
    rig.checkCanaries();
  }
});

Deno.test("a descriptor says that it is done only if its driver asked, and the head register says it always", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attachAdvanced(0), rig.attachAdvanced(1)];
  b.fill(16);
  const bytes = frame({ dst: rigMac(1), src: rigMac(0) });
  for (const [asked, round] of [[false, 0], [true, 1], [false, 2], [true, 3]] as const) {
    const length = a.writeFrame(a.heap, bytes);
    const slot = a.tx().tail;
    a.tx().add(a.iova(a.heap), txMeta(length, asked ? 0x0900_0000 : 0x0100_0000));
    a.tx().doorbell();
    rig.run();
    assertEquals(a.tx().head, round + 1);
    assertEquals((a.tx().read(slot)[1] >> 32n) & 1n, asked ? 1n : 0n);
  }
  assertEquals(b.receive().length, 4);
});

Deno.test("an interrupt comes once for each time that it is asked for", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attachAdvanced(0), rig.attachAdvanced(1)];
  b.fill(32);
  const bytes = frame({ dst: rigMac(1), src: rigMac(0) });
  const calls = () => {
    a.send([bytes]);
    rig.wasm.run(rig.nowNs, 10);
    return rig.takeCalls();
  };
  assertEquals(calls(), 0);
  b.rx().interrupt = true;
  assertEquals(calls(), 1);
  assertEquals(calls(), 0, "masked until it is asked for again");
  b.rx().interrupt = true;
  a.tx().interrupt = true;
  assertEquals(calls(), 2);
});

Deno.test("split headers: UDP and TCP headers go into buffers of their own, everything else stays whole", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0), rig.attachAdvanced(1, {}, 256)];
  const ring = b.rx();
  const [packets, headers] = [b.heap + 0x20000, b.heap + 0x80000];
  const post = (i: number) => ring.add(b.iova(packets + i * 2048), b.iova(headers + i * 2048));
  for (let i = 0; i < 16; i++) post(i);
  ring.doorbell();
  const ipv4 = (protocol: number, l4: number[]) => {
    const body = [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, ...l4];
    return Uint8Array.from([...body, ...Array.from({ length: 300 }, (_, i) => i & 255)]);
  };
  const tcp = [0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
  const cases: [string, number, Uint8Array, number][] = [
    ["UDP", 0x0800, ipv4(17, [0, 1, 0, 2, 0, 8, 0, 0]), 14 + 20 + 8],
    ["TCP with options", 0x0800, ipv4(6, tcp), 14 + 20 + 24],
    ["ICMP", 0x0800, ipv4(1, []), 14 + 20],
    ["not IP", 0x88b5, new Uint8Array(300), 0],
  ];
  for (const [i, [name, etherType, payload, split]] of cases.entries()) {
    const sent = frame({ dst: rigMac(1), src: rigMac(0), etherType, payload });
    a.send([sent]);
    rig.run();
    const [low, high] = ring.read(i);
    const info = Number(low & 0xffff_ffffn);
    assertEquals((info & ADV_RXD_SPH) !== 0, split > 0, name);
    assertEquals((info >>> ADV_RXD_HDRLEN_SHIFT) & 0x3ff, split, name);
    assertEquals(Number((high >> 32n) & 0xffffn), sent.length - split, name);
    assertEquals(b.bytes(headers + i * 2048, split), sent.slice(0, split), name);
    assertEquals(b.bytes(packets + i * 2048, sent.length - split), sent.slice(split), name);
  }
  rig.checkCanaries();
});

Deno.test("a doorbell that races with going to sleep is seen: arming answers that there is work", () => {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attachAdvanced(0), rig.attachAdvanced(1)];
  b.fill(8);
  const armed = () => rig.view.getUint32(a.tx().registers + 68, true);
  assertEquals(rig.wasm.coolAll(), 0);
  assertEquals(armed(), 1, "the driver is asked to kick");
  rig.wasm.heat(a.queuePointer(1));
  assertEquals(armed(), 0, "it is polled again");
  a.send([frame({ dst: rigMac(1), src: rigMac(0) })]);
  assertEquals(rig.wasm.coolAll(), 1);
  assertEquals(armed(), 0);
  rig.run();
  assertEquals(b.receive().length, 1);
});
