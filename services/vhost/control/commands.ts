/**
 * The commands of the control queue (virtio 1.2 §5.1.6.5) as what they mean: a wish that the PF's policy grants or
 * refuses, or something that the device itself does. Pure.
 */
import * as V from "../../../shared/layout/virtio.ts";
import { macText } from "../mac_text.ts";

/** A command, understood. */
export type Command =
  | { kind: "promisc"; on: boolean }
  | { kind: "allMulticast"; on: boolean }
  | { kind: "addresses"; unicast: string[]; multicast: string[] }
  | { kind: "mac"; mac: string }
  | { kind: "vlan"; id: number; on: boolean }
  | { kind: "announced" }
  | { kind: "offloads"; features: bigint }
  | { kind: "queuePairs"; pairs: number };

const MAC_BYTES = 6;

/** Reads a command; `undefined` if there is none such, or its data is not as long as it has to be. */
export function readCommand(bytes: Uint8Array<ArrayBuffer>): Command | undefined {
  if (bytes.byteLength < 2) return undefined;
  const [what, command] = bytes;
  const data = bytes.subarray(2);
  switch (what) {
    case V.VIRTIO_NET_CTRL_RX:
      return readReceiveMode(command ?? 0, data);
    case V.VIRTIO_NET_CTRL_MAC:
      return command === V.VIRTIO_NET_CTRL_MAC_TABLE_SET ? readTables(data) : readAddress(command ?? 0, data);
    case V.VIRTIO_NET_CTRL_VLAN: {
      const id = word(data);
      const isKnown = command === V.VIRTIO_NET_CTRL_VLAN_ADD || command === V.VIRTIO_NET_CTRL_VLAN_DEL;
      if (id === undefined || id > 4095 || !isKnown) return undefined;
      return { kind: "vlan", id, on: command === V.VIRTIO_NET_CTRL_VLAN_ADD };
    }
    case V.VIRTIO_NET_CTRL_ANNOUNCE:
      return command === V.VIRTIO_NET_CTRL_ANNOUNCE_ACK ? { kind: "announced" } : undefined;
    case V.VIRTIO_NET_CTRL_MQ: {
      const pairs = word(data);
      if (command !== V.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || pairs === undefined) return undefined;
      return { kind: "queuePairs", pairs };
    }
    case V.VIRTIO_NET_CTRL_GUEST_OFFLOADS: {
      if (command !== V.VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET || data.byteLength !== 8) return undefined;
      const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
      return { kind: "offloads", features: view.getBigUint64(0, true) };
    }
    default:
      return undefined;
  }
}

function word(data: Uint8Array<ArrayBuffer>): number | undefined {
  if (data.byteLength !== 2) return undefined;
  return (data[0] ?? 0) | ((data[1] ?? 0) << 8);
}

function readReceiveMode(command: number, data: Uint8Array<ArrayBuffer>): Command | undefined {
  const [on] = data;
  if (data.byteLength !== 1 || on === undefined || on > 1) return undefined;
  if (command === V.VIRTIO_NET_CTRL_RX_PROMISC) return { kind: "promisc", on: on === 1 };
  return command === V.VIRTIO_NET_CTRL_RX_ALLMULTI ? { kind: "allMulticast", on: on === 1 } : undefined;
}

function readAddress(command: number, data: Uint8Array<ArrayBuffer>): Command | undefined {
  if (command !== V.VIRTIO_NET_CTRL_MAC_ADDR_SET || data.byteLength !== MAC_BYTES) return undefined;
  return { kind: "mac", mac: macText(data) };
}

/** Two tables, unicast and multicast: a count u32 and so many addresses each. */
function readTables(data: Uint8Array<ArrayBuffer>): Command | undefined {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const tables: string[][] = [];
  let at = 0;
  for (let i = 0; i < 2; i++) {
    if (at + 4 > data.byteLength) return undefined;
    const entries = view.getUint32(at, true);
    at += 4;
    if (entries > (data.byteLength - at) / MAC_BYTES) return undefined;
    const end = at + entries * MAC_BYTES;
    const table: string[] = [];
    for (; at < end; at += MAC_BYTES) table.push(macText(data.subarray(at, at + MAC_BYTES)));
    tables.push(table);
  }
  const [unicast = [], multicast = []] = tables;
  const isMulticast = (mac: string) => (parseInt(mac.slice(0, 2), 16) & 1) === 1;
  if (at !== data.byteLength || unicast.some(isMulticast) || !multicast.every(isMulticast)) return undefined;
  return { kind: "addresses", unicast, multicast };
}
