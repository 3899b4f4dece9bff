/**
 * Offloads where frames are not just passed on: tags that are put in and taken out, many receivers that differ, holds.
 * Which frame arrives how is property/offload_test.ts's.
 */
import { assertEquals } from "@std/assert";
import {
  OFFLOAD_F_CSUM,
  OFFLOADS_ALL,
  P_BUFFER,
  POOL_STRIDE,
  POOL_UPLINK,
  POOLS,
  Q_OFFLOADS,
  QUEUE_F_INDIRECT,
  QUEUE_F_MRG_RXBUF,
} from "../../shared/layout/nic.ts";
import { PacketBuffer } from "../../shared/engine/packet_buffer.ts";
import type { Arena } from "../../shared/os/mod.ts";
import { EngineRig, rigMac, type VirtioRigGuest } from "../support/engine_rig.ts";
import { type VirtqueueName, VIRTQUEUES } from "../support/formats.ts";
import { BROADCAST } from "../support/mock_guest.ts";
import { frameOf, type Sent, type Shape } from "../support/offload_frames.ts";
import type { NetHeader } from "../support/reference_offload.ts";
import { finishChecksum, segment } from "../support/reference_segments.ts";

const DATA_VALID = 2;
const TAG = [0x81, 0x00, 0x60, 0x05];
const SHAPE: Shape = {
  ...{
    version: 4,
    isTcp: true,
    tags: [],
    ipOptions: 0,
    extensions: [],
    tcpOptions: 3,
    tcpFlags: 0x19,
    sequence: 1,
    id: 1,
  },
  ...{ dontFragment: true, payloadBytes: 5000, seed: 1, gsoSize: 1448, isEcn: false, hdrLen: 0 },
};
const HEADERS = 14 + 20 + 32;

const FORMATS = Object.keys(VIRTQUEUES) as VirtqueueName[];

function addressed(shape: Partial<Shape>, to: string): Sent {
  const sent = frameOf({ ...SHAPE, ...shape });
  sent.frame.set([to, rigMac(0)].flatMap((mac) => mac.split(":").map((byte) => parseInt(byte, 16))));
  return sent;
}

function headerBytes({ flags, gsoType, hdrLen, gsoSize, csumStart, csumOffset }: NetHeader): Uint8Array {
  const bytes = new Uint8Array(12);
  bytes.set([flags, gsoType]);
  const view = new DataView(bytes.buffer);
  [hdrLen, gsoSize, csumStart, csumOffset].forEach((value, i) => view.setUint16(2 + 2 * i, value, true));
  return bytes;
}

function attach(rig: EngineRig, format: VirtqueueName, pool: number, offloads: number): VirtioRigGuest {
  const options = { queueSize: 64, bufferBytes: 8192 };
  const guest = rig.attachVirtqueues(format, pool, options, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
  for (const index of [0, 1]) rig.view.setUint16(guest.queuePointer(index) + Q_OFFLOADS, offloads, true);
  guest.fill(48);
  return guest;
}

function send(guest: VirtioRigGuest, { frame, header }: Sent): void {
  guest.sendPieces(frame, [], { header: headerBytes(header) });
}

function tagged(frame: Uint8Array): Uint8Array {
  return new Uint8Array([...frame.slice(0, 12), ...TAG, ...frame.slice(12)]);
}

for (const format of FORMATS) {
  Deno.test(`a tag that is put in moves what lies behind it (${format})`, () => {
    for (const accepts of [OFFLOADS_ALL, 0]) {
      const rig = new EngineRig(1, { 0: { vlan: 5, qos: 3 } });
      const sender = attach(rig, format, 0, OFFLOADS_ALL);
      const uplink = attach(rig, format, POOL_UPLINK, accepts);
      const sent = addressed({}, "02:00:00:00:00:77");
      send(sender, sent);
      rig.run();
      const arrived = uplink.receiveWhole();
      if (accepts === 0) {
        const wanted = segment(sent.frame, sent.header).map(tagged);
        assertEquals(arrived.map(({ frame }) => frame), wanted);
        continue;
      }
      const header = { ...sent.header, csumStart: sent.header.csumStart + 4, hdrLen: HEADERS + 4 };
      assertEquals(arrived.map(({ frame }) => frame), [tagged(sent.frame)]);
      assertEquals(arrived[0]?.header.slice(0, 10), headerBytes(header).slice(0, 10));
    }
  });

  Deno.test(`a tag that is taken out moves it back (${format})`, () => {
    for (const accepts of [OFFLOADS_ALL, 0]) {
      const rig = new EngineRig(1, { 0: { vlan: 5 } });
      const uplink = attach(rig, format, POOL_UPLINK, OFFLOADS_ALL);
      const receiver = attach(rig, format, 0, accepts);
      const plain = addressed({}, rigMac(0));
      // From somebody out there.
      plain.frame[11] = 0x77;
      const { frame, header } = plain;
      send(uplink, { frame: tagged(frame), header: { ...header, csumStart: header.csumStart + 4 } });
      rig.run();
      const arrived = receiver.receiveWhole();
      assertEquals(arrived.map((one) => one.frame), accepts === 0 ? segment(frame, header) : [frame]);
      const wanted = { ...header, hdrLen: HEADERS };
      if (accepts !== 0) assertEquals(arrived[0]?.header.slice(0, 10), headerBytes(wanted).slice(0, 10));
    }
  });

  Deno.test(`of a flooded frame each receiver gets what it accepts (${format})`, () => {
    const rig = new EngineRig(4);
    const sender = attach(rig, format, 0, OFFLOADS_ALL);
    const [plain, whole, summing] = [
      attach(rig, format, 1, 0),
      attach(rig, format, 2, OFFLOADS_ALL),
      attach(rig, format, 3, OFFLOAD_F_CSUM),
    ];
    const cut = addressed({}, BROADCAST);
    send(sender, cut);
    rig.run();
    const segments = segment(cut.frame, cut.header);
    assertEquals(plain?.receive(), segments);
    assertEquals(whole?.receive(), [cut.frame]);
    const finished = summing?.receiveWhole() ?? [];
    assertEquals(finished.map(({ frame }) => frame), segments);
    assertEquals(finished.map(({ header }) => header[0]), segments.map(() => DATA_VALID));

    const summed = addressed({ gsoSize: 0, payloadBytes: 200 }, BROADCAST);
    send(sender, summed);
    rig.run();
    const done = finishChecksum(summed.frame, summed.header);
    assertEquals(plain?.receive(), [done]);
    // It was finished for the first one; what is right for all is right for those that would have finished it.
    for (const guest of [whole, summing]) {
      const [one] = guest?.receiveWhole() ?? [];
      assertEquals(one?.frame, done);
      assertEquals(one?.header[0], DATA_VALID);
    }
  });

  Deno.test(`what waits in a packet buffer waits whole, and goes on in segments where it has begun so (${format})`, () => {
    for (const accepts of [OFFLOADS_ALL, 0]) {
      const rig = new EngineRig(2);
      const sender = attach(rig, format, 0, OFFLOADS_ALL);
      const options = { queueSize: 64, bufferBytes: 2048 };
      const receiver = rig.attachVirtqueues(format, 1, options, QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF);
      rig.view.setUint16(receiver.queuePointer(0) + Q_OFFLOADS, accepts, true);
      const at = EngineRig.guestOffset(16);
      new Uint8Array(rig.view.buffer, at, 0x40000).fill(0);
      const arena = { allocateOwn: (bytes: number) => ({ offset: at, bytes }), releaseOwn: () => {} };
      const buffer = new PacketBuffer(arena as unknown as Arena, rig.view, 1);
      rig.view.setUint32(POOLS + POOL_STRIDE + P_BUFFER, buffer.queue, true);
      const sent = addressed({ payloadBytes: 9000 }, rigMac(1));
      // Room for three segments, and for the frame not at all.
      receiver.fill(3);
      send(sender, sent);
      rig.run();
      const first = receiver.receive();
      receiver.fill(30);
      rig.run();
      const arrived = [...first, ...receiver.receive()];
      assertEquals(arrived, accepts === 0 ? segment(sent.frame, sent.header) : [sent.frame]);
      assertEquals(first.length, accepts === 0 ? 3 : 0);
      assertEquals(rig.counters(1).rx_no_buffer, 0);
    }
  });
}
