/**
 * Hostile offloads (hostile.md 6, 7, 34): headers that are rewritten while they are checked, and frames whose segments
 * are as many as can be. What was checked is what arrives, and nobody else pays for it.
 */
import { assert, assertEquals } from "@std/assert";
import { OFFLOADS_ALL, Q_OFFLOADS } from "../../shared/layout/nic.ts";
import { EngineRig, rigMac } from "../support/engine_rig.ts";
import { Flipper } from "../support/flipper.ts";
import { BROADCAST } from "../support/mock_guest.ts";
import { frameOf, type Sent, type Shape } from "../support/offload_frames.ts";
import { EVERYTHING, type NetHeader, validate } from "../support/reference_offload.ts";
import { ipOf } from "../support/reference_packet.ts";
import { sumOf } from "../support/reference_segments.ts";
import { until } from "../support/wait.ts";

const HEADER_BYTES = 12;
const ROUNDS = 3000;
const TCP: Shape = {
  ...{
    version: 4,
    isTcp: true,
    tags: [],
    ipOptions: 0,
    extensions: [],
    tcpOptions: 3,
    tcpFlags: 0x18,
    sequence: 1,
    id: 1,
  },
  ...{ dontFragment: true, payloadBytes: 3000, seed: 1, gsoSize: 1000, isEcn: false, hdrLen: 66 },
};

function addressed(shape: Shape, to: string, from: string): Sent {
  const sent = frameOf(shape);
  sent.frame.set([to, from].flatMap((mac) => mac.split(":").map((byte) => parseInt(byte, 16))));
  return sent;
}

function headerBytes({ flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset }: NetHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  bytes.set([flags, gsoType]);
  const view = new DataView(bytes.buffer);
  [hdrLen, gsoSize, csumStart, csumOffset].forEach((value, i) => view.setUint16(2 + 2 * i, value, true));
  return bytes;
}

function headerOf(bytes: Uint8Array): NetHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const [hdrLen = 0, gsoSize = 0, csumStart = 0, csumOffset = 0] = [2, 4, 6, 8].map((at) => view.getUint16(at, true));
  return { flags: bytes[0] ?? 0, gsoType: bytes[1] ?? 0, hdrLen, gsoSize, csumStart, csumOffset };
}

/** A sender on VF 0 that may ask for everything, VF 1 that accepts everything, VF 2 that accepts nothing. */
function world() {
  const rig = new EngineRig(3);
  const [sender, whole, plain] = [0, 1, 2].map((vf) =>
    rig.attach(vf, vf === 0 ? { queueSize: 16, bufferBytes: 66_000 } : { queueSize: 64, bufferBytes: 8192 })
  ) as [ReturnType<EngineRig["attach"]>, ReturnType<EngineRig["attach"]>, ReturnType<EngineRig["attach"]>];
  rig.view.setUint16(sender.queuePointer(1) + Q_OFFLOADS, OFFLOADS_ALL, true);
  rig.view.setUint16(whole.queuePointer(0) + Q_OFFLOADS, OFFLOADS_ALL, true);
  return { rig, sender, whole, plain };
}

for (
  const { what, at, values } of [
    { what: "its own header", at: [0, 4, 6, 8], values: [0x0001, 0x0101, 0x0401, 1000, 34, 16, 0, 0xffff] },
    {
      what: "IP lengths, options and protocol",
      at: [26, 28, 30, 34],
      values: [0x0045, 0x004f, 0x1106, 0x0640, 0x0c, 0],
    },
    { what: "the TCP header's length", at: [58, 60], values: [0x1880, 0x18f0, 0x1850, 0x1810] },
  ]
) {
  Deno.test(`a guest that rewrites ${what} while it is checked: what arrives is what was checked`, async () => {
    const { rig, sender, whole, plain } = world();
    const { frame, header } = addressed(TCP, BROADCAST, rigMac(0));
    const memory = rig.view.buffer as unknown as SharedArrayBuffer;
    // The sender's buffers come round: each of them is rewritten.
    const offsets = Array.from({ length: 16 }, (_, slot) => sender.heap + (16 + slot) * 66_000)
      .flatMap((slot) => at.map((offset) => slot + offset));
    let [unfinished, finished] = [0, 0];
    await using flipper = new Flipper({ memory, offsets, values });
    await until("the flipper to rewrite", () => flipper.rounds > 0);
    for (let round = 0; round < ROUNDS; round++) {
      whole.fill(16 - whole.posted());
      plain.fill(16 - plain.posted());
      sender.sendPieces(frame, [], { header: headerBytes(header) });
      rig.run(4);
      for (const one of whole.receiveWhole()) {
        const asks = headerOf(one.header);
        if (asks.flags !== 1) continue;
        unfinished++;
        assertEquals(validate(one.frame, asks, EVERYTHING), undefined);
      }
      for (const one of plain.receiveWhole()) {
        assertEquals([...one.header.slice(0, 10)], Array(10).fill(0), "it negotiated nothing");
        const ip = ipOf(one.frame);
        if (typeof ip === "string" || one.frame.length > 1100) continue;
        finished++;
        assertEquals(ip.end, one.frame.length, "a segment is as long as it says");
      }
    }
    assertEquals(rig.error(0, 1), 0);
    rig.checkCanaries();
    assert(unfinished > 0 || finished > 0, "something arrived");
  });
}

Deno.test("frames that are cut into a thousand segments are charged for them: one is taken in a visit", () => {
  const { rig, sender, plain } = world();
  plain.fill(64);
  const dear = addressed({ ...TCP, payloadBytes: 60_000, gsoSize: 32 }, rigMac(2), rigMac(0));
  for (let i = 0; i < 8; i++) sender.sendPieces(dear.frame, [], { header: headerBytes(dear.header) });
  rig.run(1);
  assertEquals(rig.counters(0).tx_frames, 1);
  assertEquals(rig.counters(2).rx_frames, 64);
  // The segments behind the first that found no room share its fate.
  assertEquals(rig.counters(2).rx_no_buffer, Math.ceil(60_000 / 32) - 64);
});

Deno.test("a frame that would be cut into more segments than there may be is refused", () => {
  const { rig, sender, plain } = world();
  plain.fill(64);
  const dear = addressed({ ...TCP, payloadBytes: 60_000, gsoSize: 1 }, rigMac(2), rigMac(0));
  sender.sendPieces(dear.frame, [], { header: headerBytes(dear.header) });
  rig.run();
  assertEquals(rig.counters(0).tx_bad_offload, 1);
  assertEquals(rig.counters(2).rx_frames, 0);
});

Deno.test("a frame for many is cut into few segments only: each of its receivers would have it cut for itself", () => {
  const { rig, sender, whole, plain } = world();
  const send = (segments: number) => {
    const dear = addressed({ ...TCP, payloadBytes: segments * 16, gsoSize: 16 }, BROADCAST, rigMac(0));
    sender.sendPieces(dear.frame, [], { header: headerBytes(dear.header) });
    rig.run();
  };
  for (const guest of [whole, plain]) guest.fill(64);
  send(129);
  assertEquals([whole.receive().length, plain.receive().length], [0, 0]);
  assertEquals(rig.counters(0).tx_bad_offload, 1);
  send(60);
  assertEquals([whole.receive().length, plain.receive().length], [1, 60]);
  assertEquals(rig.counters(0).tx_bad_offload, 1);
});

Deno.test("a sum is not stored over what policy reads: neither a tag nor an address can be chosen by it", () => {
  const { rig, sender, plain } = world();
  rig.set(0, { allowedIps: ["10.0.0.1"] });
  plain.fill(64);
  const { frame, header } = addressed({ ...TCP, gsoSize: 0, payloadBytes: 200 }, rigMac(2), rigMac(0));
  const tries = [[14, 12], [14, 2], [20, 6], [33, 0], [14, 14], [12, 0], [12, 2], [0, 12], [26, 0]];
  for (const [csumStart = 0, csumOffset = 0] of tries) {
    sender.sendPieces(frame, [], { header: headerBytes({ ...header, csumStart, csumOffset }) });
    rig.run();
    assertEquals(plain.receive(), [], `from ${csumStart}, at ${csumOffset}`);
  }
  assertEquals(rig.counters(0).tx_bad_offload, tries.length);
  sender.sendPieces(frame, [], { header: headerBytes(header) });
  rig.run();
  assertEquals(plain.receive().length, 1);
});

Deno.test("an LLC header is not made SNAP's by a sum: some receivers would look for ARP behind it", () => {
  const { rig, sender, plain } = world();
  rig.set(0, { allowedIps: ["10.0.0.1"] });
  plain.fill(64);
  const { frame } = addressed({ ...TCP, gsoSize: 0, payloadBytes: 30 }, rigMac(2), rigMac(0));
  // A length, an LLC header, ARP's EtherType where SNAP has it, and what makes the sum SNAP's 0xaaaa.
  frame.set([0, frame.length - 14, 0x42, 0x42, 3, 0, 0, 0, 8, 6], 12);
  const words = new DataView(frame.buffer, frame.byteOffset + 14);
  const bytes = words.byteLength - words.byteLength % 2;
  words.setUint16(bytes - 2, 0);
  words.setUint16(bytes - 2, 0xffff - (sumOf(frame.subarray(14)) + 0xaaaa) % 0xffff);
  const header = { flags: 1, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 14, csumOffset: 0 };
  sender.sendPieces(frame, [], { header: headerBytes(header) });
  rig.run();
  assertEquals(plain.receive().map((got) => got.slice(14, 16)), []);
  assertEquals(rig.counters(0).tx_bad_offload, 1);
});
