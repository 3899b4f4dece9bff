/**
 * Captures of the engine's frames: what each port sends and gets, as it has it, dropped frames with the reason, and what
 * becomes of a reader that does not keep up.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  CAPTURE_RING_BYTES,
  CAPTURES_MAX,
  CTL,
  CTL_UNIT_NS,
  P_WATCH,
  POOL_STRIDE,
  POOLS,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
} from "../../shared/layout/nic.ts";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { asked, blocksOf, framesOf, inLines, optionsOf, rigCaptures, taken } from "../support/capture_rig.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";
import { rigBuffer } from "../support/pool_buffer.ts";
import { rig as benchRig, test } from "../support/switch_bench.ts";

const FOREIGN = "02:99:99:99:99:99";
const between = (src: number, dst: number, bytes = 64) => frame({ src: rigMac(src), dst: rigMac(dst), bytes });

test("a port's capture has what it sends and what it gets, byte for byte", () => {
  const { rig, guests: [a, b] } = benchRig(3);
  const { captures } = rigCaptures(rig);
  const capture = captures.open(asked("ports=0,1", 3));
  const sent = [between(0, 1), between(0, 1, 300), between(0, 2)];
  a?.send(sent);
  rig.run();
  b?.send([between(1, 0, 1514)]);
  rig.run();
  const frames = taken(capture);
  assertEquals(inLines(frames), ["0 out", "0 out", "0 out", "1 in", "1 in", "1 out", "0 in"]);
  const all = [...sent, ...sent.slice(0, 2), between(1, 0, 1514), between(1, 0, 1514)];
  assertEquals(frames.map(({ bytes }) => [...bytes]), all.map((bytes) => [...bytes]));
  assertEquals(frames.map(({ length }) => length), all.map(({ length }) => length));
  capture.close();
  a?.send([between(0, 1)]);
  rig.run();
  assertEquals(captures.count, 0);
});

test("frames are cut at the snap length, and say how long they were; times are nanoseconds since 1970", () => {
  const { rig, guests: [a] } = benchRig(2);
  const capture = rigCaptures(rig).captures.open(asked("ports=1&snap=33", 2));
  const before = BigInt(Date.now()) * 1_000_000n;
  for (const bytes of [32, 33, 34, 1514]) a?.send([between(0, 1, bytes)]);
  rig.run();
  const frames = taken(capture);
  assertEquals(frames.map(({ bytes, length }) => [bytes.length, length]), [[32, 32], [33, 33], [33, 34], [33, 1514]]);
  assertEquals([...frames[3]?.bytes ?? []], [...between(0, 1, 1514).subarray(0, 33)]);
  // The rig's clock begins at a second; what counts is that it is added to the time since 1970.
  for (const { ns } of frames) assert(ns > before - 10n ** 18n && ns < before + 10n ** 18n, String(ns));
});

test("each port has a frame's tag as it sees it", () => {
  const { rig, guests } = benchRig(2, { 0: { vlan: 100 }, 1: { trunk: [100] } }, true);
  const capture = rigCaptures(rig).captures.open(asked("", 2));
  guests[0]?.send([between(0, 1), frame({ src: rigMac(0), dst: FOREIGN })]);
  rig.run();
  const frames = taken(capture);
  const lengths = frames.map(({ port, direction, length }) => `${port} ${direction} ${length}`);
  assertEquals(lengths.sort(), ["0 out 64", "0 out 64", "1 in 68", "3 out 68"]);
  const tagged = frames.find(({ port }) => port === 1)?.bytes ?? new Uint8Array();
  assertEquals([...tagged], [...frame({ src: rigMac(0), dst: rigMac(1), bytes: 68, tags: [{ vid: 100 }] })]);
});

test("what is dropped says why: at its sender's port what that may not send, at its receiver's what that does not take", () => {
  const { rig, guests: [a, b] } = benchRig(3, { 0: { spoofCheck: true, trunk: [5] }, 2: { linkState: "disable" } });
  const { captures } = rigCaptures(rig);
  const [all, dropped] = [captures.open(asked("", 3)), captures.open(asked("dropped=true", 3))];
  a?.send([
    frame({ src: FOREIGN, dst: rigMac(1) }),
    frame({ src: rigMac(0), dst: rigMac(1), tags: [{ vid: 6 }] }),
    between(0, 1).subarray(0, 13),
    between(0, 0),
    between(0, 2),
    between(0, 1),
  ]);
  rig.run();
  const reasons = [
    "0 out dropped: tx_spoofed",
    "0 out dropped: tx_vlan_denied",
    "0 out dropped: tx_runt",
    "0 out dropped: tx_to_self",
  ];
  const link = "2 in dropped: rx_link_down";
  assertEquals(inLines(taken(dropped)).sort(), [...reasons, link].sort());
  assertEquals(inLines(taken(all)).sort(), [...reasons, "0 out", "0 out", link, "1 in"].sort());
  assert(b?.receive().length === 1);
});

for (const isBuffered of [false, true]) {
  test(`frames without a receive buffer say so${isBuffered ? ", once the pool's packet buffer is full" : ""}`, () => {
    const { rig, guests: [a, b] } = benchRig(2);
    const { captures } = rigCaptures(rig);
    b?.receive();
    const { buffer } = rigBuffer(rig, 1);
    const capture = captures.open(asked("ports=1", 2));
    const send = (frames: number) => {
      for (let i = 0; i < frames; i += 8) {
        a?.send(Array.from({ length: 8 }, () => between(0, 1, 1514)));
        rig.run(20);
      }
    };
    send(48);
    if (isBuffered) {
      buffer.give();
      send(8000);
    }
    const frames = taken(capture);
    const { rx_no_buffer = 0, rx_frames = 0 } = rig.counters(1);
    const lines = Map.groupBy(inLines(frames), (line) => line);
    assertEquals(lines.get("0 in")?.length, rx_frames);
    const lost = Number(capture.lost);
    assertEquals((lines.get("0 in dropped: rx_no_buffer")?.length ?? 0) + lost, rx_no_buffer);
    assert(rx_no_buffer > 0);
  });
}

Deno.test("an oversize frame, one that is too large for its receiver's buffers, and one to be finished say so", () => {
  const rig = new EngineRig(2);
  const sender = rig.attach(0, { queueSize: 64 }, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
  rig.attach(1, { queueSize: 64 }).fill(4);
  const capture = rigCaptures(rig).captures.open(asked("snap=64", 2));
  const send = (bytes: number) => {
    sender.sendPieces(between(0, 1, bytes), [12, 40_000]);
    rig.run();
  };
  send(70_000);
  send(9000);
  assertEquals(inLines(taken(capture)), [
    "0 out dropped: tx_oversize",
    "0 out",
    "1 in dropped: rx_too_small",
  ]);
});

test("a frame for everybody is captured where it is sent and where it arrives, the full receiver's with its reason", () => {
  const { rig, guests: [a, b] } = benchRig(3);
  const { captures } = rigCaptures(rig);
  for (let i = 0; i < 40; i++) {
    a?.send([between(0, 1)]);
    rig.run();
  }
  const capture = captures.open(asked("", 3));
  a?.send([frame({ src: rigMac(0), dst: "ff:ff:ff:ff:ff:ff" })]);
  rig.run();
  assertEquals(inLines(taken(capture)).sort(), ["0 out", "1 in dropped: rx_no_buffer", "2 in"]);
  assert((b?.receive().length ?? 0) > 0);
});

Deno.test("a reader that does not keep up loses frames, is told how many, and holds nobody up", () => {
  const { rig, sender } = flood();
  const { captures } = rigCaptures(rig);
  const capture = captures.open(asked("ports=1", 2));
  const rounds = Math.ceil(1.5 * CAPTURE_RING_BYTES / (32 * 1560));
  for (let i = 0; i < rounds; i++) sender();
  const first = taken(capture);
  const lost = Number(capture.lost);
  assertEquals(first.length + lost, rounds * 32);
  assert(lost > 0 && first.every((one) => one.lost === 0));
  assertEquals(rig.counters(1).rx_frames, rounds * 32, "the data path has not waited");
  sender();
  assertEquals(taken(capture).map((one) => one.lost), [lost, ...new Array(31).fill(0)]);
});

/** A rig whose VF 0 sends bursts to VF 1, which has always room. The clock goes on so fast that captures may spend all. */
function flood(bytes = 1514) {
  const rig = new EngineRig(2);
  const [a, b] = [rig.attach(0, { queueSize: 64 }), rig.attach(1, { queueSize: 64 })];
  const template = between(0, 1, bytes);
  let number = 0;
  const sender = () => {
    while (b.rx().popUsed());
    b.fill(64 - b.posted());
    a.send(Array.from({ length: 32 }, () => {
      const made = template.slice();
      new DataView(made.buffer).setUint32(20, number++);
      return made;
    }));
    rig.run(20, 10_000_000);
  };
  return { rig, sender };
}

Deno.test("many times round the ring, with blocks of all lengths, every frame is there and in order", () => {
  for (const snap of [32, 61, 128, 1514]) {
    const { rig, sender } = flood(1514);
    const capture = rigCaptures(rig).captures.open(asked(`ports=1&snap=${snap}`, 2));
    let next = 0;
    for (let i = 0; i < (snap < 1000 ? 800 : 300); i++) {
      sender();
      if (i % 7 !== 0) continue;
      for (const { bytes } of taken(capture)) {
        assertEquals(new DataView(bytes.buffer, bytes.byteOffset).getUint32(20), next++);
      }
    }
    assertEquals(capture.lost, 0n);
    assert(next > 2000);
  }
});

Deno.test("captures together spend a share of a busy engine's time, and count what they leave out", () => {
  const { rig, sender } = flood(64);
  rig.isClockStill = true;
  const capture = rigCaptures(rig).captures.open(asked("ports=1", 2));
  for (let i = 0; i < 50; i++) sender();
  assertEquals(capture.lost, 0n);
  // From now on no time goes by: what may be spent at once is spent, and then nothing more.
  const step = rig.nowNs;
  for (let i = 0; i < 20_000 && capture.lost === 0n; i++) {
    rig.nowNs = step - 10_000_000;
    rig.view.setFloat64(CTL + CTL_UNIT_NS, 1, true);
    sender();
    taken(capture);
  }
  assert(capture.lost > 0n);
});

Deno.test("a filter of many comparisons is paid for as such", () => {
  const long = Array.from({ length: 80 }, (_, i) => `vlan ${i + 1}`).join(" or ");
  /** Frames that a capture looks at before its time is used up, though none goes by. */
  const lookedAt = (filter: string) => {
    const { rig, sender } = flood(64);
    rig.isClockStill = true;
    const capture = rigCaptures(rig).captures.open(asked(`ports=1&filter=${encodeURIComponent(filter)}`, 2));
    const step = rig.nowNs;
    for (let frames = 0;; frames += 32) {
      rig.nowNs = step - 10_000_000;
      rig.view.setFloat64(CTL + CTL_UNIT_NS, 1, true);
      sender();
      if (capture.lost > 0n) return frames;
    }
  };
  const [few, many] = [lookedAt("vlan 7"), lookedAt(long)];
  assert(many < few / 4, `${many} with ${long.length} characters, ${few} with one comparison`);
});

Deno.test("eight captures may be open; each gives its memory back, and the engine is told twice", () => {
  const rig = new EngineRig(2);
  const { captures, released, between } = rigCaptures(rig);
  const opened = Array.from({ length: CAPTURES_MAX }, () => captures.open(asked("", 2)));
  const refusal = assertThrows(() => captures.open(asked("", 2)), DeviceRefusal);
  assertEquals(refusal.code, "capture-limit");
  const watch = () => rig.view.getUint32(POOLS + POOL_STRIDE + P_WATCH, true);
  assertEquals(watch(), 0xff);
  opened[3]?.close();
  opened[3]?.close();
  assertEquals([watch(), released(), between()], [0xf7, 1, CAPTURES_MAX + 1]);
  captures.open(asked("ports=1&dropped=true", 2));
  assertEquals(watch(), 0x8f7);
  captures.close();
  assertEquals([watch(), captures.count], [0, 0]);
  captures.open(asked("", 2));
  rigCaptures(rig).captures.takeOver();
  assertEquals(watch(), 0, "a successor has none of its predecessor's captures");
});

Deno.test("a stream begins with its interfaces, says what was lost, and ends with its reader or its service", async () => {
  const { rig, sender } = flood();
  const { captures, released } = rigCaptures(rig);
  const capture = captures.open(asked("snap=96", 2));
  const reader = capture.stream().getReader();
  const head = blocksOf((await reader.read()).value as Uint8Array);
  assertEquals(head.map(({ type }) => type), [0x0a0d0d0a, 1, 1, 1, 1]);
  const names = head.slice(1).map(({ body }) => {
    assertEquals([body.getUint16(0, true), body.getUint32(4, true)], [1, 96]);
    const options = new Map(optionsOf(body, 8));
    assertEquals(options.get(9)?.getUint8(0), 9, "nanoseconds");
    return new TextDecoder().decode(options.get(2));
  });
  assertEquals(names, ["vf0", "vf1", "pf", "uplink"]);
  sender();
  assertEquals(framesOf((await reader.read()).value as Uint8Array).length, 64);
  // With nothing to tell it says every two seconds that it is alive, so that an end without a reader is noticed.
  const statistics = blocksOf((await reader.read()).value as Uint8Array);
  assertEquals(statistics.map(({ type, body }) => [type, body.getUint32(0, true)]), [[5, 0]]);
  await reader.cancel();
  assertEquals([captures.count, released()], [0, 1]);
  const other = captures.open(asked("", 2)).stream().getReader();
  await other.read();
  captures.close();
  assert((await other.read()).done);
});
