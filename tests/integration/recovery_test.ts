/**
 * The NIC and vhost killed with -9 where nobody stands by (`--no-standby`): a new process is started, and traffic stands
 * still for as long as that takes. What the dead process had in its hands may be lost; nothing comes twice or out of order.
 */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { setMode } from "../support/guests.ts";
import { outage, told } from "../support/standby.ts";
import { StreamedPair } from "../support/streamed_pair.ts";
import { until } from "../support/wait.ts";

const KILLS = Number(Deno.env.get("RECOVERY_KILLS") ?? 2);
/** The last process has to run well before it is killed, or `up` takes it for one that dies at each start. */
const RAN_WELL_MS = 2000;
const LOOK_MS = 2;
/** What the dead process had is not waited for: else its loss would be taken for an outage. */
const LOST_MS = 20;

for (const victim of ["nic", "vhost"] as const) {
  for (const dataPath of [undefined, "copy"]) {
    const how = `${victim} killed, guests ${dataPath === undefined ? "on the NIC's rings" : "emulated by copy"}`;
    Deno.test(`${how}: traffic comes back by itself, and nothing comes twice`, async () => {
      await using fabric = await TestFabric.start(2);
      for (const vf of dataPath === undefined ? [] : [0, 1]) await setMode(fabric, vf, { mode: "emulated", dataPath });
      await using pair = await StreamedPair.attach(fabric, "split", { lostMs: LOST_MS });
      const { a, b, stream } = pair;
      const outages: number[] = [];
      let lost = 0;
      for (let kill = 0; kill < KILLS; kill++) {
        const wellAt = performance.now() + RAN_WELL_MS;
        await stream.during("it to run well", () => performance.now() > wellAt);
        await stream.more(300);
        const before = stream.lost;
        Deno.kill(fabric.pid(victim), "SIGKILL");
        const fronts = victim === "vhost" ? [a, b] : [];
        const reconnecting = Promise.all(fronts.map(async (front, vf) => {
          await front.closedByBackEnd();
          const isBack = () => front.reconnect(fabric.vf(vf).socket).then(() => true, () => false);
          await until("vhost to take its guest again", isBack, 20_000, LOOK_MS);
        }));
        outages.push(await outage(stream));
        await reconnecting;
        lost += stream.lost - before;
      }
      await stream.end();
      console.log(`${how}: ${stream.sent} frames, ${lost} lost, outages of ${told(outages)}`);
      assertEquals([stream.repeated, stream.received + stream.lost], [0, stream.sent], fabric.process.errors);
      assert(stream.lost === lost, `${stream.lost - lost} frames were lost while nobody was killed`);
    });
  }
}
