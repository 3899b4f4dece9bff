/**
 * Emulated mode with the guest's own buffers on the NIC's rings: what comes is what was sent, each of the guest's buffers
 * comes back once and in order, and what cannot go directly is copied and counted.
 */
import { assert, assertEquals } from "@std/assert";
import { QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF } from "../../shared/layout/nic.ts";
import { DirectRig } from "../support/direct_rig.ts";
import { rigMac, VIRTQUEUE_FORMATS } from "../support/engine_rig.ts";
import { frame } from "../support/mock_guest.ts";

const SIZES = [60, 61, 128, 512, 1514, 1518];

function numbered(n: number, bytes: number): Uint8Array {
  const made = frame({ dst: rigMac(1), src: rigMac(0), bytes });
  new DataView(made.buffer).setUint32(14, n);
  return made;
}

for (const directness of ["copy", "zerocopy", "headersplit"] as const) {
  for (const format of VIRTQUEUE_FORMATS) {
    Deno.test(`${directness}, ${format}: frames of every size come as they were sent, in order`, () => {
      const world = new DirectRig(2);
      const a = world.attach(directness, format);
      const b = world.attach(directness, format);
      let n = 0;
      b.guest.fill(60);
      for (let round = 0; round < 60; round++) {
        const sent = Array.from({ length: 1 + round % 30 }, () => numbered(n, SIZES[n++ % SIZES.length] as number));
        a.guest.send(sent);
        world.run(20);
        const got = b.guest.receive();
        assertEquals(got.length, sent.length, `round ${round}, error ${a.error} ${b.error}`);
        assertEquals(got, sent);
        b.guest.fill(sent.length);
        assertEquals(a.guest.room(), 64);
      }
      assertEquals([a.error, b.error], [0, 0]);
      world.rig.checkCanaries();
      if (directness === "copy") return;
      const { sent, sentCopied } = a.counters;
      const { received, receivedCopied } = b.counters;
      assertEquals([sent, sentCopied, received + receivedCopied], [n, 0, n]);
      if (directness === "zerocopy") assert(received > n * 0.9, `${received} of ${n}`);
    });
  }
}
void [QUEUE_F_INDIRECT, QUEUE_F_MRG_RXBUF];
