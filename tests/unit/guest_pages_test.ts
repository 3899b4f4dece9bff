/** Which of a guest's pages move, which of them are to be sent again, and how its times fit the target's clock. */
import { assertEquals } from "@std/assert";
import * as L from "../../shared/layout/guest.ts";
import { clockDifference, shiftTimes } from "../../services/guest/migration/clock.ts";
import { isMovedPage, MovedPages } from "../../services/guest/migration/pages.ts";
import { PAGE_BYTES } from "../../services/guest/migration/stream.ts";

const pageOf = (at: number) => Math.floor(at / PAGE_BYTES);

function pages(): { ram: Uint8Array; pages: MovedPages } {
  const buffer = new SharedArrayBuffer(L.GUEST_RAM_BYTES_MIN);
  return { ram: new Uint8Array(buffer), pages: new MovedPages(buffer) };
}

Deno.test("a guest's pages: what was written since it was sent is sent again, and nothing that was never written", () => {
  const { ram, pages: moved } = pages();
  assertEquals(moved.changed(), []);
  const places = [L.GC, L.FLOWS + 5, L.CAPTURE - 1, L.TX_QUEUES, L.USER_MEMORY, L.GUEST_RAM_BYTES_MIN - 1];
  for (const at of places) ram[at] = 1;
  assertEquals(moved.changed(), places.map(pageOf));
  moved.take(places.map(pageOf));
  assertEquals(moved.changed(), []);
  ram[L.FLOWS + 5] = 0;
  assertEquals(moved.changed(), [pageOf(L.FLOWS)], "back to zero is a change too");
  assertEquals(moved.sent[L.FLOWS + 5], 1, "what is sent is what was taken");
});

Deno.test("a guest's pages: rings, the plugin's image and captured frames stay, whatever is written there", () => {
  const { ram, pages: moved } = pages();
  const places = [L.CAPTURE, L.VIRTIO_AREA, L.PLUGIN_AREA, L.IMAGE_SLOT, L.TX_SCRATCH, L.RX_SCRATCH, 0];
  for (const at of places) ram[at] = 1;
  assertEquals(moved.changed(), []);
  assertEquals(places.map((at) => isMovedPage(pageOf(at), L.GUEST_RAM_BYTES_MIN)), places.map(() => false));
  assertEquals(isMovedPage(pageOf(L.GUEST_RAM_BYTES_MIN), L.GUEST_RAM_BYTES_MIN), false);
});

Deno.test("a guest's pages: of the packet buffers only those with something to send move", () => {
  const { ram, pages: moved } = pages();
  const buffers = [8, 9, 11, 20];
  for (const buffer of buffers) ram[L.BUFFERS + buffer * 2048] = 1;
  assertEquals(moved.changed(), []);
  ram[L.BUFFER_OWNERS + 9] = L.OWNER_HOST;
  ram[L.BUFFER_OWNERS + 11] = L.OWNER_RX;
  ram[L.BUFFER_OWNERS + 20] = L.OWNER_TX;
  assertEquals(moved.changed(), [pageOf(L.BUFFER_OWNERS), pageOf(L.BUFFERS) + 4]);
});

Deno.test("a guest's times move with the clocks, its intervals do not, and the time that it stood still has gone by", () => {
  const there = { monotonicNs: 5e12, wallMs: 1_000_000 };
  assertEquals(clockDifference(there, { monotonicNs: 5e12 + 80e6, wallMs: 1_000_080 }), 0, "one host");
  assertEquals(clockDifference(there, { monotonicNs: 7e9, wallMs: 1_000_080 }), 7e9 - 5e12 - 80e6, "another one");
  assertEquals(clockDifference(there, { monotonicNs: 5e12, wallMs: 990_000 }), 0, "whose wall clock is behind");
  const view = new DataView(new ArrayBuffer(L.GUEST_RAM_BYTES_MIN));
  const moved = [
    ...[L.ARP_TABLE + 255 * L.ARP_STRIDE + L.ARP_AT_NS, L.PINGS + L.PING_LAST_NS],
    L.PINGS + 7 * L.PING_STRIDE + L.PING_SENT_AT + 999 * 8,
    ...[L.GENERATORS + L.GEN_BEGAN_NS, L.GENERATORS + 15 * L.GENERATOR_STRIDE + L.GEN_NEXT_NS],
    L.FLOWS + 47 * L.FLOW_STRIDE + L.FLOW_LAST_NS,
  ];
  const kept = [L.PINGS + L.PING_INTERVAL_NS, L.PINGS + L.PING_TIMEOUT_NS, L.FLOWS + L.FLOW_LONGEST_GAP];
  for (const at of [...moved, ...kept, L.GENERATORS + L.GEN_RATE]) view.setFloat64(at, 1000, true);
  shiftTimes(view, -250);
  assertEquals(moved.map((at) => view.getFloat64(at, true)), moved.map(() => 750));
  assertEquals(kept.map((at) => view.getFloat64(at, true)), kept.map(() => 1000));
  assertEquals(view.getFloat64(L.GENERATORS + L.GEN_ENDS_NS, true), 0, "a generator without an end has none");
});
