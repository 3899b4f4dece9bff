/**
 * A QEMU guest is stopped and goes on, and its link goes down and up again, while it exchanges TCP streams and pings
 * with another guest: in passthrough and emulated, while it changes hands, and with four queue pairs.
 */
import { assertEquals } from "@std/assert";
import { TestFabric } from "../support/fabric.ts";
import { must, setMode } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { type BootOptions, QemuGuest } from "../support/qemu.ts";
import { GuestTraffic } from "../support/qemu_traffic.ts";
import { until } from "../support/wait.ts";

const ROUNDS = 100;
const ROUNDS_MULTIQUEUE = 10;
/** Every so many rounds the VF changes its mode. */
const MODE_ROUNDS = 5;
/** Every so many rounds the interruption lasts until frames have come for the guest. */
const LONG_ROUNDS = 4;

/** Whether a ping is answered. */
async function pings(guest: QemuGuest, address: string): Promise<boolean> {
  return (await guest.run(`ping -c 1 -W 1 ${address}`)).code === 0;
}

/** Two guests on VFs 0 and 1 with traffic between them. The first one is interrupted. */
class StopScene implements AsyncDisposable {
  readonly first: QemuGuest;
  readonly second: QemuGuest;
  readonly traffic: GuestTraffic;
  readonly #fabric: TestFabric;
  readonly #owned: AsyncDisposableStack;
  #modeChanges = 0;

  private constructor(
    fabric: TestFabric,
    guests: [QemuGuest, QemuGuest],
    traffic: GuestTraffic,
    owned: AsyncDisposableStack,
  ) {
    this.#fabric = fabric;
    [this.first, this.second] = guests;
    this.traffic = traffic;
    this.#owned = owned;
  }

  /** Boots both guests; `options` are the first one's. */
  static async start(options: BootOptions = {}): Promise<StopScene> {
    await using owned = new AsyncDisposableStack();
    const fabric = owned.use(await TestFabric.start(2));
    const extra = ["-action", "reboot=reset", ...(options.extra ?? [])];
    const monitor = `${fabric.runDir}/monitor`;
    const first = owned.use(await QemuGuest.boot(fabric.vf(0), { ...options, monitor, extra }));
    const second = owned.use(await QemuGuest.boot(fabric.vf(1)));
    await first.address("10.0.0.1/24");
    await second.address("10.0.0.2/24");
    await until("the first ping", () => pings(first, "10.0.0.2"), 20_000);
    const traffic = await GuestTraffic.start(
      { guest: first, fabric, vf: 0, ip: "10.0.0.1" },
      { guest: second, fabric, vf: 1, ip: "10.0.0.2" },
    );
    return new StopScene(fabric, [first, second], traffic, owned.move());
  }

  async stop(): Promise<void> {
    await this.first.monitor.execute("stop");
    await this.#noRingRuns();
  }

  async cont(): Promise<void> {
    await this.first.monitor.execute("cont");
  }

  async setLink(up: boolean): Promise<void> {
    await this.first.monitor.execute("set_link", { name: "net0", up });
    if (!up) await this.#noRingRuns();
  }

  async #running(vf: number): Promise<number> {
    const { session } = await must(`${this.#fabric.url("vhost")}/api/v1/ports/${vf}`);
    return session.vrings.filter(({ running }: { running: boolean }) => running).length;
  }

  /** QEMU's monitor answers after the vhost service has, so there is nothing to wait for. */
  async #noRingRuns(): Promise<void> {
    assertEquals(await this.#running(0), 0);
  }

  /** From passthrough to emulated mode, or back. */
  async changeMode(): Promise<void> {
    const mode = this.#modeChanges++ % 2 === 0 ? "emulated" : "passthrough";
    await setMode(this.#fabric, 0, { mode });
  }

  /** Interrupts the first guest again and again. Traffic must go on after each time. */
  async interrupt(rounds: number, down: () => Promise<void>, up: () => Promise<void>): Promise<void> {
    for (let i = 0; i < rounds; i++) {
      const changes = i % MODE_ROUNDS === 0;
      // There and back while the guest is stopped, then there and back while it runs.
      const whileStopped = this.#modeChanges % 4 < 2;
      if (changes && !whileStopped) await this.changeMode();
      await down();
      if (changes && whileStopped) await this.changeMode();
      if (i % LONG_ROUNDS === 0) await this.traffic.somethingComes();
      await up();
      await this.traffic.flows();
    }
  }

  /** Kills the NIC while the guest is stopped. The other guest's rings run in its successor before the guest goes on. */
  async restartNic(): Promise<void> {
    await this.stop();
    const pid = this.#fabric.pid("nic");
    Deno.kill(pid, "SIGKILL");
    await until("the other guest's rings to run in the new NIC", async () => {
      const [, vf] = await this.#fabric.get("/api/v1/vfs").catch(() => []);
      return this.#fabric.pids().nic !== pid && vf?.queues?.length === 2;
    });
    await this.cont();
    await this.traffic.flows();
  }

  /** Checks what must be true whatever has happened. */
  async check(queuePairs: number): Promise<void> {
    const vfs = await this.#fabric.get("/api/v1/vfs");
    for (const [vf, pairs] of [queuePairs, 1].entries()) {
      const { connected, lastEnd, session } = await must(`${this.#fabric.url("vhost")}/api/v1/ports/${vf}`);
      assertEquals([connected, lastEnd], [true, undefined], `the session of vf ${vf} goes on`);
      for (const ring of session.vrings) assertEquals(ring.error, undefined, JSON.stringify(ring));
      assertEquals(await this.#running(vf), 2 * pairs);
      for (const queue of vfs[vf].queues) assertEquals(queue.state, "running", JSON.stringify(queue));
    }
    for (const guest of [this.first, this.second]) {
      const { output } = await guest.run(
        "dmesg | grep -E 'soft lockup|detected stall|BUG:|Oops:|WARNING:|NETDEV WATCHDOG'",
      );
      assertEquals(output, "");
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.disposeAsync();
  }
}

judgedTest(["qemu"], `a QEMU guest under TCP and pings: ${ROUNDS} times stop and set_link off`, async (t) => {
  await using scene = await StopScene.start();
  await t.step("stop and cont", () => scene.interrupt(ROUNDS, () => scene.stop(), () => scene.cont()));
  await t.step("set_link off and on", async () => {
    await scene.interrupt(ROUNDS, () => scene.setLink(false), () => scene.setLink(true));
  });
  await t.step("the NIC restarts while the guest is stopped, in both modes", async () => {
    await scene.restartNic();
    await scene.changeMode();
    await scene.restartNic();
  });
  await t.step("both streams have arrived whole, pings are answered", () => scene.traffic.end());
  await t.step("no queue is in error, no session has ended, no kernel complains", () => scene.check(1));
});

judgedTest(["qemu"], "a QEMU guest with four queue pairs survives stops, lost links and a reset", async () => {
  const queuePairs = 4;
  const extra = ["-smp", String(queuePairs), "-global", "virtio-net-pci.mq=on"];
  await using scene = await StopScene.start({ queuePairs, extra });
  const { first } = scene;
  assertEquals((await first.check("ls -d /sys/class/net/eth0/queues/rx-*")).trim().split("\n").length, queuePairs);
  await scene.interrupt(ROUNDS_MULTIQUEUE, () => scene.stop(), () => scene.cont());
  await scene.interrupt(ROUNDS_MULTIQUEUE, () => scene.setLink(false), () => scene.setLink(true));
  await scene.traffic.end();
  await scene.check(queuePairs);
  await first.reset();
  await first.address("10.0.0.1/24");
  await until("a ping after the reset", () => pings(first, "10.0.0.2"), 20_000);
  await scene.check(queuePairs);
});
