/**
 * A front-end switches its dirty log on while its rings run: in passthrough, on every data path of emulated mode, and
 * while these change; when the NIC dies; and it sees what is written for its guest.
 */
import { assert, assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd, type FrontEndGuest } from "../support/front_end.ts";
import { GuestLog, setLog, startLog, stopLog } from "../support/guest_log.ts";
import { must, setMode } from "../support/guests.ts";
import { frame } from "../support/mock_guest.ts";
import { until } from "../support/wait.ts";

const MODES = [
  { mode: "passthrough" },
  ...["copy", "zerocopy", "headersplit"].map((dataPath) => ({ mode: "emulated", dataPath })),
];
const FRAME_BYTES = 300;
/** Receive buffers lie so far apart, and behind each other from the heap on. */
const BUFFER_BYTES = 2048;

/** Guest 0 sends to guest 1, whose writes are logged. */
class Scene implements AsyncDisposable {
  readonly fabric: TestFabric;
  readonly from: FrontEnd;
  readonly to: FrontEnd<FrontEndGuest>;
  #arrived = 0;

  private constructor(fabric: TestFabric, from: FrontEnd, to: FrontEnd<FrontEndGuest>) {
    [this.fabric, this.from, this.to] = [fabric, from, to];
  }

  static async start(fabric: TestFabric, format: "split" | "packed"): Promise<Scene> {
    const from = await FrontEnd.connect(fabric.vf(0).socket).start();
    const to = await FrontEnd.connectAs(format, fabric.vf(1).socket).start();
    to.guest.fill(32);
    to.kickIfWanted(0);
    return new Scene(fabric, from, to);
  }

  /** Sends a frame and waits for it; answers the page, of those that are logged, in which its buffer lies. */
  async exchange(): Promise<number> {
    const { from, to, fabric } = this;
    const sent = frame({ dst: fabric.vf(1).mac, src: fabric.vf(0).mac, bytes: FRAME_BYTES });
    // What a NIC that has died had taken is lost.
    await until("a frame", async () => {
      from.guest.send([sent]);
      from.kick();
      return await until("it to arrive", () => {
        const [got] = to.guest.receive();
        if (got) assertEquals(got, sent);
        return got;
      }, 500).catch(() => undefined);
    });
    const { options: { queueSize }, heap } = to.guest;
    const at = heap + (this.#arrived++ % queueSize) * BUFFER_BYTES;
    to.guest.fill(1);
    to.kickIfWanted(0);
    return at >> 12;
  }

  /** The page in which its receive ring lies. */
  get ringPage(): number {
    return this.to.guest.rx().used >> 12;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.from[Symbol.asyncDispose]();
    await this.to[Symbol.asyncDispose]();
  }
}

/** Checks that a frame's page and the ring's are logged. */
async function isLogged(scene: Scene, log: GuestLog, when: string): Promise<void> {
  log.take();
  const page = await scene.exchange();
  const pages = log.take();
  for (const wanted of [page, scene.ringPage]) assert(pages.includes(wanted), `${when}: ${wanted} of ${pages}`);
}

for (const format of ["split", "packed"] as const) {
  Deno.test(`${format}: what is written for a guest is logged on every data path, while they change, and no longer`, async () => {
    await using fabric = await TestFabric.start(2);
    await using scene = await Scene.start(fabric, format);
    for (const mode of MODES) {
      await setMode(fabric, 1, mode);
      const when = JSON.stringify(mode);
      await scene.exchange();
      using log = await startLog(scene.to);
      await isLogged(scene, log, when);
      const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/1`);
      assertEquals(session.dirtyLog, { bytes: log.memory.view.byteLength, on: true });
      for (const next of MODES) {
        await setMode(fabric, 1, next);
        await isLogged(scene, log, `from ${when} to ${JSON.stringify(next)}`);
      }
      using second = GuestLog.for(scene.to);
      await setLog(scene.to, second);
      log.take();
      await isLogged(scene, second, "the second log");
      assertEquals(log.take(), [], "nothing is written to a log that was replaced");
      await stopLog(scene.to);
      second.take();
      await scene.exchange();
      assertEquals(second.take(), [], "nothing is logged any more");
    }
  });
}

Deno.test("a NIC that comes back logs from the first frame on", async () => {
  await using fabric = await TestFabric.start(2);
  await using scene = await Scene.start(fabric, "split");
  using log = await startLog(scene.to);
  const pid = fabric.pid("nic");
  Deno.kill(pid, "SIGKILL");
  await until("another NIC", () => fabric.pids().nic !== pid && fabric.pids().nic !== undefined);
  await isLogged(scene, log, "after the NIC's death");
});
