/** Two fabrics on one cable, between which a QEMU guest moves: while it stands still, or while it runs. */
import { assert, assertEquals } from "@std/assert";
import { fabricCli } from "./cli.ts";
import type { AnyEvent, EventLog } from "./event_log.ts";
import { TestFabric } from "./fabric.ts";
import { must, TestGuest } from "./guests.ts";
import { Cable } from "./net_namespace.ts";
import { QemuGuest } from "./qemu.ts";
import { setUplink } from "./uplinks.ts";
import { TEST_TOKEN } from "./token.ts";
import { until } from "./wait.ts";

/** The VLAN of the guest that moves. */
export const VLAN = 100;
export const VF = 1;
/** A VF of the first fabric in that VLAN, for a guest that stays. */
export const STAYING_VF = 2;
/** What of a policy is to be found at the target. */
const POLICY = { vlan: VLAN, maxTxRate: 5000, minTxRate: 100, qos: 3, mtu: 1400 };
const DEFAULTS = { vlan: 0, maxTxRate: 0, minTxRate: 0, qos: 0, mtu: 1500 };

/** Every way in which the rings of a QEMU guest are served. */
export const MODES: readonly Record<string, string>[] = [
  { mode: "passthrough" },
  ...["copy", "zerocopy", "headersplit"].map((dataPath) => ({ mode: "emulated", dataPath })),
];

/** What became of a move. */
export interface QemuMove {
  /** For how long the guest stood still, as QEMU says. */
  downtimeMs: number;
  /** From when it was stopped to when it went on. */
  pausedMs: number;
  /** How long the target VF was without the guest's address when the guest already ran there: what QEMU knows nothing of. */
  addedMs: number;
  /** For how long nobody had the address, as `fabric migrate` says. */
  swapMs: number;
}

/** How the guest of a scene is made. */
interface SceneOptions {
  /** More properties of its network device. */
  device?: string;
  /** It moves while it runs: its memory is a file that both machines have. */
  runs?: boolean;
}

/** When a guest that has come began to run, in ms since 1970. */
async function ranAt({ monitor }: QemuGuest): Promise<number> {
  return await until("QEMU's event", async () => {
    await monitor.execute("query-status");
    return monitor.at("RESUME");
  });
}

/** A round of pings, and when one has not been answered. */
const PINGS = 100;
const LATE_MS = 2000;
/** What of a fabric's log is shown when something went wrong. */
const LOG_CHARACTERS = 4000;

/** Two fabrics on one cable; a built-in guest of the first pings a QEMU guest that moves between them. */
export class QemuMoves {
  readonly fabrics: readonly [TestFabric, TestFabric];
  readonly peer: TestGuest;
  readonly ip: string;
  readonly mac: string;
  guest: QemuGuest;
  at = 0;
  #moves = 0;
  readonly #events: readonly EventLog[];
  readonly #owned: AsyncDisposableStack;
  readonly #machine: { device?: string; ram?: string };

  private constructor(
    fabrics: [TestFabric, TestFabric],
    guest: QemuGuest,
    owned: AsyncDisposableStack,
    machine: { device?: string; ram?: string },
    events: readonly EventLog[],
  ) {
    this.fabrics = fabrics;
    this.guest = guest;
    this.#owned = owned;
    this.#machine = machine;
    this.#events = events;
    this.peer = TestGuest.of(fabrics[0], 0);
    this.ip = this.peer.ip.replace(/\d+$/, "200");
    this.mac = fabrics[0].vf(VF).mac;
  }

  /** The fabric where the guest is. */
  get here(): TestFabric {
    return this.fabrics[this.at] as TestFabric;
  }

  async pingsAnswered(): Promise<void> {
    await this.peer.reaches(this.ip);
  }

  /** Has the peer ping the guest for as long as `act` takes; answers how many pings were lost. */
  async pinged<T>(intervalMs: number, act: () => Promise<T>): Promise<{ result: T; lost: number }> {
    let isOver = false;
    const pinging = (async () => {
      let lost = 0;
      while (!isOver) {
        const { sent, received } = await this.peer.ping(this.ip, PINGS, { intervalMs, timeoutMs: LATE_MS });
        lost += sent - received;
      }
      return lost;
    })();
    const result = await act().finally(async () => {
      isOver = true;
      // If the act has failed, that is what is told, and not what becomes of the pings.
      await pinging.catch(() => {});
    });
    return { result, lost: await pinging };
  }

  /** Its kernel has nothing to complain of. */
  async isSound(): Promise<void> {
    const { output } = await this.guest.run("dmesg | grep -E 'BUG:|Oops:|WARNING:|NETDEV WATCHDOG'");
    assertEquals(output, "");
  }

  /**
   * Moves the guest to the other fabric. With `isTold`, its address goes there because the source's PF says that the guest
   * stands still; else `fabric migrate` may have seen only that it runs there, up to a quarter of a second later.
   */
  async move(isTold = false): Promise<QemuMove> {
    const told = this.#events.map(({ all }) => all.length);
    const [from, to] = this.at === 0 ? this.fabrics : this.fabrics.toReversed() as [TestFabric, TestFabric];
    const name = `${to.runDir}/migrate${++this.#moves}`;
    const seat = { ...to.vf(VF), mac: this.mac };
    const next = this.#owned.use(
      await QemuGuest.incoming(seat, `unix:${name}`, { monitor: `${name}.monitor`, ...this.#machine }),
    );
    const words = ["--json", "migrate", String(VF), "--to-run-dir", to.runDir, "--timeout", "120"];
    const command = fabricCli(["--run-dir", from.runDir, ...words], { RINGFABRIC_TO_TOKEN: TEST_TOKEN });
    const early = command.then(({ err }) => Promise.reject(new Error(`fabric migrate ended early: ${err}`)));
    const ready = until("the target VF", async () => (await to.get(`/api/v1/vfs/${VF}`)).vlan === VLAN);
    await Promise.race([ready, early]);
    early.catch(() => {});
    const downtimeMs = await this.#byQemu(`unix:${name}`, next, from);
    const { code, out, err } = await command;
    assertEquals(code, 0, err);
    const owned = await this.#toldAt(1 - this.at, told, ({ type, changes }) => {
      return type === "vf-changed" && (changes as { mac?: string }).mac === this.mac;
    });
    if (isTold) {
      const stoodStill = await this.#toldAt(this.at, told, ({ type, vf }) => type === "guest-paused" && vf === VF);
      assert(stoodStill <= owned, "the target had the address before the source's PF said that the guest stands still");
    }
    const [stopped, ran] = [this.guest.monitor.at("STOP"), await ranAt(next)];
    const [pausedMs, addedMs] = [ran - (stopped ?? ran), Math.max(0, owned - ran)];
    await this.guest[Symbol.asyncDispose]();
    [this.guest, this.at] = [next, 1 - this.at];
    await this.pingsAnswered();
    return { downtimeMs, pausedMs, addedMs, swapMs: JSON.parse(out).swapMs };
  }

  /** When the PF of a fabric told such an event, behind so many that each PF had told before; in ms since 1970. */
  async #toldAt(at: number, before: readonly number[], isIt: (event: AnyEvent) => boolean): Promise<number> {
    const told = () => this.#events[at]?.all.slice(before[at]) ?? [];
    const event = await until("the PF to tell of its VF", () => told().find(isIt)).catch((error) => {
      const said = this.fabrics[at]?.process.errors.slice(-LOG_CHARACTERS);
      throw new Error(`${(error as Error).message}; it has told ${JSON.stringify(told())}\n${said}`);
    });
    return Date.parse(String(event.at));
  }

  #byQemu(to: string, next: QemuGuest, from: TestFabric): Promise<number> {
    const { ram } = this.#machine;
    return ram === undefined ? this.guest.move(to, next, () => this.#isLogged(from)) : this.guest.moveRunning(to, next);
  }

  /** What is written for the guest is logged, and it is reached meanwhile. */
  async #isLogged(fabric: TestFabric): Promise<void> {
    await until("the dirty log", async () => {
      const { session } = await must(`${fabric.url("vhost")}/api/v1/ports/${VF}`);
      return session.dirtyLog?.on;
    });
    const { sent, received } = await this.peer.ping(this.ip, 20, { intervalMs: 10, timeoutMs: 2000 });
    assertEquals(received, sent);
  }

  /** The address is the guest's VF's, where it is, with its policy; and nobody else's. */
  async check(mode: Record<string, string>): Promise<void> {
    const views = await Promise.all(this.fabrics.map((fabric) => fabric.get("/api/v1/vfs")));
    const owners = views.map((vfs) => vfs.filter(({ mac }: { mac: string }) => mac === this.mac).length);
    assertEquals(owners, this.at === 0 ? [1, 0] : [0, 1]);
    const [here, left] = [views[this.at][VF], views[1 - this.at][VF]];
    const of = (vf: Record<string, unknown>) => Object.fromEntries(Object.keys(POLICY).map((key) => [key, vf[key]]));
    assertEquals([of(here), here.mode, here.dataPath], [POLICY, mode.mode, mode.dataPath]);
    assertEquals(of(left), DEFAULTS);
    const { session } = await must(`${this.fabrics[this.at]?.url("vhost")}/api/v1/ports/${VF}`);
    assertEquals(session.vrings.filter(({ error }: { error?: string }) => error !== undefined), []);
  }

  /** Runs `use` in a scene, and takes it apart. */
  static async play({ device, runs }: SceneOptions, use: (scene: QemuMoves, cable: Cable) => Promise<void>) {
    await using owned = new AsyncDisposableStack();
    const cable = owned.use(await Cable.make());
    const near = owned.use(await TestFabric.start(3, ["--guests", "1"]));
    const far = owned.use(await TestFabric.start(2));
    for (const [i, fabric] of [near, far].entries()) {
      await setUplink(fabric, { kind: "packet", interface: cable.ends[i] as string });
    }
    await near.patch(0, { vlan: VLAN });
    await near.patch(VF, POLICY);
    await near.patch(STAYING_VF, { vlan: VLAN });
    const machine: { device?: string; ram?: string } = device === undefined ? {} : { device };
    if (runs) {
      const dir = await Deno.makeTempDir({ dir: "/dev/shm", prefix: "ringfabric-ram-" });
      owned.defer(() => Deno.remove(dir, { recursive: true }));
      machine.ram = `${dir}/ram`;
    }
    const guest = owned.use(await QemuGuest.boot(near.vf(VF), { monitor: `${near.runDir}/monitor`, ...machine }));
    const events = [owned.use(await near.events()), owned.use(await far.events())];
    const scene = new QemuMoves([near, far], guest, owned, machine, events);
    await guest.address(`${scene.ip}/24`);
    await scene.pingsAnswered();
    await use(scene, cable);
  }
}
