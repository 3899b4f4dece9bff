/**
 * A worker's context: everything that an engine owns hangs off one base. Two engines over different contexts of one
 * arena forward side by side, and nobody touches the place where contexts usually are.
 */
import { assertEquals } from "@std/assert";
import {
  ACTIVE_LIST,
  C_RX_FRAMES,
  CTL,
  CTL_ACTIVE_COUNT,
  CTL_HOT_COUNT,
  HOT_LIST,
  P_COUNTERS,
  P_RX_COUNT,
  P_RX_QUEUES,
  POOL_STRIDE,
  POOLS,
  WINDOWS,
} from "../../shared/layout/nic.ts";
import type { NicExports } from "../../services/nic/exports.ts";
import { engineInstance, EngineRig, rigMac, type VirtioRigGuest } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const VFS = 2;
const POISON = 0xee;
/** Far above the guests of both rigs. */
const BASES = [0x4000_0000, 0x5000_0000] as const;

/** An engine at work in a context of its own, and its guests. */
interface Worker {
  base: number;
  wasm: NicExports;
  view: DataView;
  sender: VirtioRigGuest;
  receiver: VirtioRigGuest;
}

/** Moves a rig's context to `base`: what points into it points there afterwards. */
function moveContext(view: DataView, base: number): void {
  const bytes = new Uint8Array(view.buffer);
  bytes.copyWithin(base, 0, WINDOWS);
  const move = (at: number) => view.setUint32(base + at, view.getUint32(base + at, true) + base, true);
  for (const [list, count] of [[ACTIVE_LIST, CTL_ACTIVE_COUNT], [HOT_LIST, CTL_HOT_COUNT]] as const) {
    for (let i = 0; i < view.getUint32(CTL + count, true); i++) move(list + i * 4);
  }
  for (let pool = 0; pool < VFS; pool++) {
    const at = POOLS + pool * POOL_STRIDE;
    for (let i = 0; i < view.getUint32(at + P_RX_COUNT, true); i++) move(at + P_RX_QUEUES + i * 4);
  }
}

function startWorker(i: number): Worker {
  const rig = new EngineRig(VFS, {}, i * VFS);
  const [sender, receiver] = [rig.attachVirtqueues(i === 0 ? "split" : "packed", 0), rig.attachVirtqueues("split", 1)];
  const base = BASES[i] ?? 0;
  moveContext(rig.view, base);
  const wasm = engineInstance();
  wasm.setContext(base);
  wasm.calibrate();
  return { base, wasm, view: rig.view, sender, receiver };
}

Deno.test("two engines forward over contexts of their own; nothing is at a fixed address", () => {
  const workers = [startWorker(0), startWorker(1)];
  const usual = new Uint8Array(workers[0]?.view.buffer ?? new ArrayBuffer(0), 0, WINDOWS);
  usual.fill(POISON);
  const sent = Array.from({ length: 40 }, (_, k) => frame({ dst: rigMac(1), src: rigMac(0), bytes: 60 + k * 30 }));
  for (let round = 0; round < 5; round++) {
    for (const { sender, receiver } of workers) {
      sender.room();
      receiver.fill(40);
      sender.send(sent);
    }
    for (let pass = 0; pass < 50; pass++) {
      for (const { wasm } of workers) wasm.run(2e9 + round * 1e6 + pass * 1000, 1);
    }
    for (const { receiver } of workers) assertEquals(receiver.receive(), sent);
  }
  for (const { base, view } of workers) {
    const counters = base + POOLS + POOL_STRIDE + P_COUNTERS;
    assertEquals(view.getBigUint64(counters + C_RX_FRAMES, true), BigInt(5 * sent.length));
  }
  assertEquals(usual.findIndex((byte) => byte !== POISON), -1, "somebody wrote where contexts usually are");
});
