/** Why a plugin's report is not believed, in words: it says by NO_BUFFER that its device broke the protocol. */
import { AREA_EXCHANGE, GC, GC_PATH, PLUGIN_AREA, VIRTIO_AREA } from "../../shared/layout/guest.ts";
import { ENTRY_BYTES, LIST_DONE, LIST_MAX, LIST_RX, NO_BUFFER, PLUGIN_EXCHANGE } from "../../shared/layout/plugin.ts";

/** What is wrong with the `n` entries that `call` of the data path in use has reported for a queue pair. */
export function whyNotBelieved(ram: DataView, call: "txDone" | "rx", pair: number, n: number): string {
  const area = ram.getUint32(GC + GC_PATH, true) === 0 ? VIRTIO_AREA : PLUGIN_AREA;
  const [list, stride] = call === "txDone" ? [LIST_DONE, 4] : [LIST_RX, ENTRY_BYTES];
  const at = area + AREA_EXCHANGE + list - PLUGIN_EXCHANGE;
  const buffers = Array.from({ length: Math.min(n, LIST_MAX) }, (_, i) => ram.getUint32(at + i * stride, true));
  if (buffers.includes(NO_BUFFER)) {
    return `its device broke the protocol: it used a descriptor that it was not given (${call}, queue pair ${pair})`;
  }
  return `${call} reported ${n} entries that cannot be (queue pair ${pair})`;
}
