/**
 * hostile.md 22–24: traffic that costs more than its frames' number says. It is charged for, one visit stays short, and
 * nobody else pays. Frames, units and passes are counted, nothing is timed.
 */
import { assert, assertEquals } from "@std/assert";
import {
  CTL,
  CTL_PASSES,
  P_LOG,
  P_LOG_BYTES,
  POOL_STRIDE,
  POOLS,
  Q_FLAGS,
  QUEUE_F_INDIRECT,
  QUEUE_F_LOG,
  QUEUE_F_MRG_RXBUF,
} from "../../shared/layout/nic.ts";
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE } from "../../shared/layout/virtio.ts";
import { writeEntry } from "../support/attack_kit.ts";
import { EngineRig, rigMac, type VirtioRigGuest, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { BROADCAST, frame, MockGuest } from "../support/mock_guest.ts";

const MRG = QUEUE_F_INDIRECT | QUEUE_F_MRG_RXBUF;
const PASSES = 100;
const ENTRIES = 1020;
const REGIONS = 64;
/** Units that a pass credits a pool with, and bytes that are copied for one. */
const QUANTUM = 4608;
const BYTES_A_UNIT = 64;

function pass(rig: EngineRig): void {
  rig.wasm.run(rig.nowNs += 1e5, 1);
  rig.takeCalls();
}

/** Has what is written for a guest logged, in memory beside all guests'. */
function startLog(rig: EngineRig, guest: VirtioRigGuest): void {
  const at = POOLS + guest.pool * POOL_STRIDE;
  rig.view.setUint32(at + P_LOG, EngineRig.guestOffset(8), true);
  rig.view.setUint32(at + P_LOG_BYTES, 2 ** 20, true);
  const flags = guest.queuePointer(0) + Q_FLAGS;
  rig.view.setUint32(flags, rig.view.getUint32(flags, true) | QUEUE_F_LOG, true);
}

/** Posts as many receive buffers as there is room for, each a table of nothing but empty entries and a last one. */
function postDearBuffers(guest: VirtioRigGuest): void {
  const [table, buffer] = [guest.heap + 1024 ** 2, guest.heap + 1.5 * 1024 ** 2];
  for (let i = 0; i < ENTRIES; i++) {
    const isLast = i + 1 === ENTRIES;
    const next = guest instanceof MockGuest && !isLast ? VIRTQ_DESC_F_NEXT : 0;
    const entry = { addr: guest.iova(buffer), len: isLast ? 256 : 0, flags: VIRTQ_DESC_F_WRITE | next };
    writeEntry(guest, table + i * 16, { ...entry, next: isLast ? 0 : i + 1 });
  }
  while (guest.rx().popUsed());
  while (guest.rx().free > 0) {
    guest.rx().addRaw([{ addr: guest.iova(table), len: ENTRIES * 16, flags: VIRTQ_DESC_F_INDIRECT }]);
  }
  guest.rx().publish();
}

for (const format of VIRTQUEUE_FORMATS) {
  Deno.test(`a receiver whose chains take too long to walk loses its own frames, with a counter (${format})`, () => {
    const rig = new EngineRig(3);
    const sender = rig.attach(0, { queueSize: 256, bufferBytes: 128 });
    const hostile = rig.attachVirtqueues(format, 1, { queueSize: 1024, bufferBytes: 256 }, MRG);
    const honest = rig.attachVirtqueues(format, 2, { queueSize: 1024, bufferBytes: 256 }, MRG);
    postDearBuffers(hostile);
    honest.fill(1024);
    sender.send(Array.from({ length: 256 }, (_, i) => frame({ dst: rigMac(1 + i % 2), src: rigMac(0), bytes: 60 })));
    rig.run();
    const { rx_frames = 0, rx_too_dear = 0 } = rig.counters(1);
    assertEquals(rx_frames + rx_too_dear, 128);
    assert(rx_frames > 0 && rx_too_dear > 0, `${rx_frames} delivered, ${rx_too_dear} too dear`);
    assertEquals([honest.receive().length, rig.counters(2).rx_too_dear], [128, 0]);
    rig.checkCanaries();
  });

  Deno.test(`what it costs to log where a receiver's buffers lie is charged, too (${format})`, () => {
    const deliveredTo = (logged: boolean) => {
      const rig = new EngineRig(2);
      const sender = rig.attach(0, { queueSize: 256, bufferBytes: 128 });
      const receiver = rig.attachVirtqueues(format, 1, { queueSize: 512, bufferBytes: 256 }, MRG);
      const { offset, bytes, iova } = receiver.options;
      const size = bytes / REGIONS;
      const window = (i: number) => offset + i * size;
      rig.setRegions(
        1,
        Array.from({ length: REGIONS }, (_, i) => ({ iova: iova + BigInt(i * size), size, window: window(i) })),
      );
      const table = receiver.heap + size;
      for (let i = 0; i < REGIONS; i++) {
        const next = receiver instanceof MockGuest && i + 1 < REGIONS ? VIRTQ_DESC_F_NEXT : 0;
        const entry = {
          addr: receiver.iova(window(i) + size - 64),
          len: 4,
          flags: VIRTQ_DESC_F_WRITE | next,
          next: i + 1,
        };
        writeEntry(receiver, table + i * 16, entry);
      }
      while (receiver.rx().free > 0) {
        receiver.rx().addRaw([{ addr: receiver.iova(table), len: REGIONS * 16, flags: VIRTQ_DESC_F_INDIRECT }]);
      }
      receiver.rx().publish();
      if (logged) startLog(rig, receiver);
      sender.send(Array.from({ length: 256 }, () => frame({ dst: rigMac(1), src: rigMac(0), bytes: 200 })));
      rig.run();
      return rig.counters(1).rx_frames ?? 0;
    };
    const [logged, unlogged] = [deliveredTo(true), deliveredTo(false)];
    assert(logged > 0 && logged < 0.7 * unlogged, `${logged} frames with a log, ${unlogged} without`);
  });

  Deno.test(`what somebody else sends to a receiver costs an honest sender nothing (${format})`, () => {
    const sentBeside = (bytes: number) => {
      const rig = new EngineRig(3);
      const attacker = rig.attach(0, { queueSize: 256, bufferBytes: 256 });
      const sender = rig.attach(1, { queueSize: 1024, bufferBytes: 256 });
      const receiver = rig.attachVirtqueues(format, 2, { queueSize: 1024, bufferBytes: 256 }, MRG);
      const long = new Uint8Array(bytes);
      long.set(frame({ dst: rigMac(2), src: rigMac(0), bytes: 60 }).subarray(0, bytes));
      const at = attacker.heap + 1024 ** 2;
      const len = attacker.writeFrame(at, long);
      const honest = frame({ dst: rigMac(2), src: rigMac(1), bytes: 60 });
      for (let i = 0; i < PASSES; i++) {
        while (receiver.rx().popUsed());
        receiver.fill(1024 - receiver.posted());
        sender.send(Array(sender.room()).fill(honest));
        while (attacker.tx().popUsed());
        if (bytes > 0) attacker.tx().add([{ addr: attacker.iova(at), len, write: false }]);
        attacker.tx().publish();
        pass(rig);
      }
      return rig.counters(1).tx_frames ?? 0;
    };
    const alone = sentBeside(0);
    for (const bytes of [300, 1514, 60_000]) {
      const beside = sentBeside(bytes);
      assert(beside >= 0.9 * alone, `${beside} frames beside one of ${bytes} bytes a pass, ${alone} alone`);
    }
  });
}

Deno.test("a flooded frame is charged for each copy", () => {
  const receivers = 24;
  const bytes = 60_000;
  const rig = new EngineRig(receivers + 2);
  const [flooder, sender] = [rig.attach(0, { queueSize: 64 }), rig.attach(1, { queueSize: 256, bufferBytes: 256 })];
  const others = Array.from(
    { length: receivers },
    (_, i) => rig.attach(2 + i, { queueSize: 64, bufferBytes: 65_600 }),
  );
  const long = new Uint8Array(bytes);
  long.set(frame({ dst: BROADCAST, src: rigMac(0), bytes: 60 }));
  const at = flooder.heap + 1024 ** 2;
  const len = flooder.writeFrame(at, long);
  for (let i = 0; i < PASSES; i++) {
    while (flooder.tx().popUsed());
    while (flooder.tx().free > 0) flooder.tx().add([{ addr: flooder.iova(at), len, write: false }]);
    flooder.tx().publish();
    sender.send(Array(sender.room()).fill(frame({ dst: rigMac(2), src: rigMac(1), bytes: 60 })));
    for (const other of others) {
      while (other.rx().popUsed());
      other.rx().publish();
    }
    pass(rig);
  }
  const units = (rig.counters(0).tx_frames ?? 0) * receivers * (bytes / BYTES_A_UNIT);
  assert((rig.counters(0).tx_frames ?? 0) > 0);
  // Copies that cost nothing would be forty times as many.
  assert(units <= 1.5 * PASSES * QUANTUM, `${units} units of copies in ${PASSES} passes`);
});

for (const [pairs, minTxRate] of [[1, 0], [5, 0], [8, 0], [5, 1], [16, 1]] as const) {
  Deno.test(`a pool of ${pairs} pairs and minTxRate ${minTxRate} that owes alone pays in one pass`, () => {
    const others = { minTxRate: minTxRate === 0 ? 0 : 10_000 };
    const rig = new EngineRig(3, { 0: { minTxRate }, 1: others, 2: others });
    const sender = rig.attach(0, { queuePairs: pairs, queueSize: 256, bufferBytes: 128 }, MRG);
    const hostile = rig.attach(1, { queueSize: 1024, bufferBytes: 256 }, MRG);
    for (let i = 0; i < 4; i++) {
      postDearBuffers(hostile);
      for (let pair = 0; pair < pairs; pair++) {
        sender.send(Array(sender.room(pair)).fill(frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 })), pair);
      }
      const before = rig.view.getBigUint64(CTL + CTL_PASSES, true);
      pass(rig);
      const passes = Number(rig.view.getBigUint64(CTL + CTL_PASSES, true) - before);
      assert(passes <= 3, `${passes} passes for one`);
    }
  });
}
