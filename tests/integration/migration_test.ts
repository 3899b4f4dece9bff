/**
 * A QEMU guest moves from one fabric to another and back by QEMU's own `migrate`, under pings through a tagged VLAN: its
 * VF's policy and address go with it (`fabric migrate`), in passthrough and on every data path of emulated mode.
 */
import { assertEquals } from "@std/assert";
import { fabricCli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { must, setMode, TestGuest } from "../support/guests.ts";
import { judgedTest } from "../support/judges.ts";
import { Cable } from "../support/net_namespace.ts";
import { TestProcess } from "../support/process.ts";
import { QemuGuest } from "../support/qemu.ts";
import { setUplink } from "../support/uplinks.ts";
import { TEST_TOKEN } from "../support/token.ts";
import { until } from "../support/wait.ts";

const VLAN = 100;
const VF = 1;
/** What of a policy is to be found at the target. */
const POLICY = { vlan: VLAN, maxTxRate: 5000, minTxRate: 100, qos: 3, mtu: 1400 };
const DEFAULTS = { vlan: 0, maxTxRate: 0, minTxRate: 0, qos: 0, mtu: 1500 };
const MODES = [
  { mode: "passthrough" },
  ...["copy", "zerocopy", "headersplit"].map((dataPath) => ({ mode: "emulated", dataPath })),
];

/** Two fabrics on one cable; a built-in guest of the first pings a QEMU guest that moves between them. */
class Scene {
  readonly fabrics: readonly [TestFabric, TestFabric];
  readonly peer: TestGuest;
  readonly ip: string;
  readonly mac: string;
  guest: QemuGuest;
  at = 0;
  #moves = 0;
  readonly #owned: AsyncDisposableStack;
  readonly #device: string;

  constructor(fabrics: [TestFabric, TestFabric], guest: QemuGuest, owned: AsyncDisposableStack, device: string) {
    this.fabrics = fabrics;
    this.guest = guest;
    this.#owned = owned;
    this.#device = device;
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

  /** Moves the guest to the other fabric. */
  async move(): Promise<void> {
    const [from, to] = this.at === 0 ? this.fabrics : this.fabrics.toReversed() as [TestFabric, TestFabric];
    const name = `${to.runDir}/migrate${++this.#moves}`;
    const seat = { ...to.vf(VF), mac: this.mac };
    const options = { monitor: `${name}.monitor`, device: this.#device };
    const next = this.#owned.use(await QemuGuest.incoming(seat, `unix:${name}`, options));
    const words = ["migrate", String(VF), "--to-run-dir", to.runDir, "--timeout", "60"];
    const command = fabricCli(["--run-dir", from.runDir, ...words], { RINGFABRIC_TO_TOKEN: TEST_TOKEN });
    const early = command.then(({ err }) => Promise.reject(new Error(`fabric migrate ended early: ${err}`)));
    const ready = until("the target VF", async () => (await to.get(`/api/v1/vfs/${VF}`)).vlan === VLAN);
    await Promise.race([ready, early]);
    early.catch(() => {});
    await this.guest.migrate(`unix:${name}`, next, () => this.#isLogged(from));
    const { code, err } = await command;
    assertEquals(code, 0, err);
    await this.guest[Symbol.asyncDispose]();
    [this.guest, this.at] = [next, 1 - this.at];
    await this.pingsAnswered();
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
  static async play(device: string, use: (scene: Scene, cable: Cable) => Promise<void>): Promise<void> {
    await using owned = new AsyncDisposableStack();
    const cable = owned.use(await Cable.make());
    const near = owned.use(await TestFabric.start(2, ["--guests", "1"]));
    const far = owned.use(await TestFabric.start(2));
    for (const [i, fabric] of [near, far].entries()) {
      await setUplink(fabric, { kind: "packet", interface: cable.ends[i] as string });
    }
    await near.patch(0, { vlan: VLAN });
    await near.patch(VF, POLICY);
    const monitor = `${near.runDir}/monitor`;
    const guest = owned.use(await QemuGuest.boot(near.vf(VF), { monitor, device }));
    const scene = new Scene([near, far], guest, owned, device);
    await guest.address(`${scene.ip}/24`);
    await scene.pingsAnswered();
    await use(scene, cable);
  }
}

for (const [ring, device] of [["split", "mrg_rxbuf=on"], ["packed", "packed=on"]] as const) {
  judgedTest(["qemu"], `a QEMU guest with ${ring} rings moves there and back in every mode, under pings`, async () => {
    await Scene.play(device, async (scene) => {
      for (const mode of MODES) {
        await setMode(scene.here, VF, mode);
        await scene.move();
        await scene.check(mode);
      }
      const { output } = await scene.guest.run("dmesg | grep -E 'BUG:|Oops:|WARNING:|NETDEV WATCHDOG'");
      assertEquals(output, "");
    });
  });
}

judgedTest(
  ["qemu", "tshark"],
  "a QEMU guest that has moved is announced on its VF's VLAN, by itself or by RARP",
  async (t) => {
    for (
      const [who, device, seen] of [["the guest", "guest_announce=on", "arp.isgratuitous"], [
        "RARP",
        "guest_announce=off",
        "vlan.etype == 0x8035",
      ]]
    ) {
      await t.step(who as string, async () => {
        await Scene.play(device as string, async (scene, cable) => {
          const wanted = `${seen} && eth.src == ${scene.mac} && vlan.id == ${VLAN}`;
          await using judge = new TestProcess("tshark", "tshark", [
            ...["-i", cable.ends[0], "-l", "-n", "-Y", wanted, "-T", "fields", "-e", "eth.src"],
          ]);
          await until("tshark", () => judge.all.includes("Capture started"));
          await scene.move();
          await judge.expect(new RegExp(`^${scene.mac}`, "m"));
        });
      });
    }
  },
);
