/** Twenty unmodified Linux guests on one fabric at a time: each reaches each, and pairs pass streams beside each other. */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { judgedTest } from "../support/judges.ts";
import { UmlGuest } from "../support/uml.ts";

const GUESTS = 20;
const ip = (n: number) => `10.0.0.${n + 1}`;

judgedTest(["uml"], "twenty guests: all-to-all ping, and iperf3 among pairs", async () => {
  await using fabric = await TestFabric.start(GUESTS);
  await using stack = new AsyncDisposableStack();
  const guests: UmlGuest[] = [];
  // Four at a time: each boot keeps a CPU busy.
  for (let n = 0; n < GUESTS; n += 4) {
    const some = Array.from({ length: 4 }, (_, i) => UmlGuest.boot(fabric.vf(n + i).socket, { memory: "64M" }));
    for (const guest of await Promise.all(some)) guests.push(stack.use(guest));
  }
  await Promise.all(guests.map((guest, n) => guest.address(`${ip(n)}/24`)));
  const everybody = Array.from({ length: GUESTS }, (_, n) => ip(n)).join(" ");
  const unreached = await Promise.all(
    guests.map((guest) =>
      guest.check(`for ip in ${everybody}; do ping -c 1 -W 5 $ip >/dev/null || echo $ip; done`, 120_000)
    ),
  );
  assertEquals(unreached, guests.map(() => ""));

  const pairs = guests.length / 2;
  await Promise.all(guests.slice(pairs).map((guest) => guest.check("iperf3 -s -D >/dev/null 2>&1; sleep 0.5")));
  const streams = await Promise.all(
    guests.slice(0, pairs).map((guest, n) => guest.check(`iperf3 -c ${ip(pairs + n)} -t 3 -J`, 120_000)),
  );
  for (const stream of streams) assert(JSON.parse(stream).end.sum_received.bytes > 100_000, stream);
  for (const vf of await fabric.get("/api/v1/vfs")) {
    for (const queue of vf.queues) assertEquals(queue.state, "running", JSON.stringify(vf));
  }
});
