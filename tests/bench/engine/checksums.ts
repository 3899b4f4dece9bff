/**
 * Rows of frames whose senders left the checksum to be finished, as Linux guests do with each TCP and UDP frame: to
 * receivers that accept it so, and to those that do not.
 */
import { measure } from "./measure.ts";
import { place } from "./ports.ts";
import type { Row } from "./row.ts";
import { type Format, type Kit, SMALL, World } from "./world.ts";

const IPV4 = 0x0800;
const IPV4_BYTES = 20;
const TCP = 6;
/** Where TCP begins in an untagged frame, and where its checksum lies in it. */
const CSUM_START = 34;
const CSUM_OFFSET = 16;
const NEEDS_CSUM = 1;
/** OFFLOAD_F_*: of senders, all; of receivers, all or none. */
const ALL = 0xffff;

/** A frame of TCP over IPv4: 64 bytes, but for its checksum. */
function tcpFrame(kit: Kit, dst: string, src: string): Uint8Array {
  const payload = new Uint8Array(64 - 14);
  payload.set([0x45, 0, 0, payload.length, 0, 0, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
  payload[IPV4_BYTES + 12] = 5 << 4;
  return kit.mock.frame({ dst, src, etherType: IPV4, payload });
}

function world(kit: Kit, format: Format, accepts: number): World {
  const made = new World(kit, 2);
  made.sender(0, [tcpFrame(kit, made.mac(1), made.mac(0))], { format });
  made.receiver(1, { format });
  const { view, guests } = made.rig;
  const offloads = kit.constant("Q_OFFLOADS");
  const [sender, receiver] = [guests.get(0), guests.get(1)];
  if (!sender || !receiver) throw new Error("The rig has no guests");
  view.setUint16(sender.queuePointer(1) + offloads, ALL, true);
  view.setUint16(receiver.queuePointer(0) + offloads, accepts, true);
  for (let slot = 0; slot < SMALL.slots; slot++) {
    const at = place(sender.heap, SMALL, slot);
    view.setUint8(at, NEEDS_CSUM);
    view.setUint16(at + 6, CSUM_START, true);
    view.setUint16(at + 8, CSUM_OFFSET, true);
  }
  return made;
}

function row(name: string, base: string, format: Format, accepts: number): Row {
  const run: Row["run"] = (kit, time) => measure(world(kit, format, accepts), true, time).nsPerFrame;
  return { name, unit: "ns/frame", base, needs: [format], run };
}

/** The rows, held against `base`. */
export function checksumRows(base: string): Row[] {
  return [
    row("checksum left to the receiver", base, "split", ALL),
    row("checksum left to the receiver, packed", base, "packed", ALL),
    row("checksum finished for the receiver", base, "split", 0),
  ];
}
