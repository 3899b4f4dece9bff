/**
 * Front-ends that keep inflight memory, whose back-end is killed with -9: their rings go on where they were, and each
 * buffer comes back once. Their drivers know each buffer by its id, and throw for one that they have not given.
 */
import { assertEquals } from "@std/assert";
import { MEM_SLOTS_MAX } from "../../shared/vhost_user/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, singleRegion } from "../support/front_end.ts";
import { setMode } from "../support/guests.ts";
import { keepInflight } from "../support/inflight_front_end.ts";
import { NumberedStream } from "../support/numbered_stream.ts";
import { until } from "../support/wait.ts";

/** As the rings are served by the NIC, and by vhost, whose guests' buffers are copied or stay on the VF's queues. */
const PATHS = { "as they are": undefined, "copied": "copy", "zero copy": "zerocopy" } as const;
/** What is tried: the used index of a split ring is in the ring, so it is the packed ones that have much to lose. */
const TRIED = {
  "split": ["zero copy"],
  "packed": ["as they are", "copied", "zero copy"],
  "packed in-order": ["as they are"],
} as const;
/** What was taken when its taker was killed, and not yet given back, may come again: a burst. */
const REPEATED_MAX = 256;
/** vhost alone; and both, so that nobody but the front-end knows where its rings were. */
const VICTIMS = [["vhost"], ["nic", "vhost"]] as const;

for (const format of ["split", "packed", "packed in-order"] as const) {
  Deno.test(`${format} rings of a front-end with inflight memory: no buffer is lost or comes back twice`, async (t) => {
    await using fabric = await TestFabric.start(2, ["--no-standby"]);
    for (const name of TRIED[format]) {
      const dataPath = PATHS[name];
      if (dataPath) { for (const vf of [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath }); }
      const options = { queueSize: format === "split" ? 64 : 50 };
      await using a = FrontEnd.connectAs(format, fabric.vf(0).socket, options);
      await using b = FrontEnd.connectAs(format, fabric.vf(1).socket, options);
      using _keptByA = keepInflight(a);
      using _keptByB = keepInflight(b);
      for (const front of [a, b]) await front.start();
      const stream = new NumberedStream(a, b, { dst: fabric.vf(1).mac, src: fabric.vf(0).mac });
      for (const victims of VICTIMS) {
        await t.step(`${name}, ${victims.join(" and ")} killed`, async () => {
          await stream.more(333);
          const pids = fabric.pids();
          for (const victim of victims) Deno.kill(fabric.pid(victim), "SIGKILL");
          await until("them to be there again", () => {
            const now = fabric.pids();
            return victims.every((victim) => now[victim] !== undefined && now[victim] !== pids[victim]);
          });
          for (const [vf, front] of [a, b].entries()) {
            await stream.during(
              "vhost to take its guest again",
              () => front.reconnect(fabric.vf(vf).socket).then(() => true).catch(() => false),
            );
          }
          await stream.more(333);
          await stream.end();
          assertEquals(stream.repeated <= REPEATED_MAX, true, `${stream.repeated} frames came again`);
          stream.repeated = 0;
          const [sender, receiver] = [a.guest, b.guest];
          assertEquals(sender.room(), options.queueSize);
          assertEquals(receiver.rx().free + receiver.posted(), options.queueSize);
        });
      }
    }
  });
}

Deno.test("beside inflight memory there is room for as many regions as were promised, on every data path", async (t) => {
  await using fabric = await TestFabric.start(1, ["--no-standby"]);
  for (const [name, dataPath] of Object.entries(PATHS)) {
    if (dataPath) await setMode(fabric, 0, { mode: "emulated", dataPath });
    await t.step(name, async () => {
      await using front = FrontEnd.connect(fabric.vf(0).socket);
      using _kept = keepInflight(front);
      await front.start();
      const { size, guestAddress, userAddress } = front.region;
      for (let n = 1n; n < MEM_SLOTS_MAX; n++) {
        const next = {
          guestAddress: guestAddress + n * size,
          userAddress: userAddress + n * size,
          size,
          mmapOffset: 0n,
        };
        const code = await front.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(next), [front.memory.fd.number]);
        assertEquals([n, code], [n, 0n]);
      }
    });
  }
});
