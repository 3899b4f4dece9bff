/** What attacks on virtqueues are made of, whatever the rings' format: their words, and how malformed buffers are offered. */
import { VIRTQ_DESC_F_INDIRECT } from "../../shared/layout/virtio.ts";
import type { CounterName } from "../../shared/layout/counter_names.ts";
import { frame, MockGuest, type SplitDriver, writeDescriptor } from "./mock_guest.ts";
import { type PackedDriver, type PackedGuest, writePackedEntry } from "./packed_guest.ts";
import type { RawDescriptor } from "./virtqueue.ts";

/** The rings that are attacked with: the guest sends, or it receives. */
export type Side = "tx" | "rx";

/** Where an attack's frames go, and from whom they say they are. */
export interface Target {
  dst: string;
  src: string;
}

/** A hostile guest, the ring that it attacks with, and what an honest descriptor of that ring has as flags. */
export interface Attacker<G extends MockGuest | PackedGuest = MockGuest | PackedGuest> {
  guest: G;
  ring: G extends MockGuest ? SplitDriver : G extends PackedGuest ? PackedDriver : SplitDriver | PackedDriver;
  flags: number;
  target: Target;
}

/** One attack. Either `reason` (the queue stops) or `counter` (the frame is dropped and counted). */
export interface RingAttack<G extends MockGuest | PackedGuest = MockGuest | PackedGuest> {
  name: string;
  reason?: number;
  counter?: CounterName;
  /** The rings on which it makes sense; both if nothing is said. */
  sides?: readonly Side[];
  /** In a receive ring: what a short frame needs of the buffer is in the guest's memory, so it may arrive as well. */
  mayReceive?: boolean;
  /** So many descriptors lie between where it begins and the end of its ring. */
  beforeEnd?: number;
  attack(attacker: Attacker<G>): void;
}

/** Offers descriptors as one buffer, with the flags of the ring's side and others. */
export function offer({ ring, flags }: Attacker, ...descriptors: RawDescriptor[]): void {
  ring.addRaw(descriptors.map((one) => ({ ...one, flags: (one.flags ?? 0) ^ flags })));
  ring.publish();
}

/** A good frame, or room for one, at the heap. */
export function goodBuffer({ guest, target }: Attacker, bytes = 64): RawDescriptor {
  return { addr: guest.iova(guest.heap), len: guest.writeFrame(guest.heap, frame({ ...target, bytes })) };
}

/** Writes an entry of an indirect table; `next` is for split rings alone. */
export function writeEntry(guest: MockGuest | PackedGuest, at: number, entry: RawDescriptor & { next?: number }): void {
  const { flags = 0 } = entry;
  if (guest instanceof MockGuest) writeDescriptor(guest.view, at, entry);
  else writePackedEntry(guest.view, at, { ...entry, write: false }, flags);
}

/** Offers an indirect table of these entries, which lies behind the heap's first buffers. */
export function offerTable(
  attacker: Attacker,
  entries: (RawDescriptor & { next?: number })[],
  length = entries.length * 16,
  flags = VIRTQ_DESC_F_INDIRECT,
): void {
  const { guest } = attacker;
  const at = guest.heap + 65536;
  entries.forEach((entry, i) => {
    writeEntry(guest, at + i * 16, { ...entry, flags: (entry.flags ?? 0) ^ attacker.flags });
  });
  attacker.ring.addRaw([{ addr: guest.iova(at), len: length, flags }]);
  attacker.ring.publish();
}
