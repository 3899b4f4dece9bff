/** Two fabrics on one cable: a built-in guest moves between them, and another one of the first knows it by its frames. */
import { assert, assertEquals } from "@std/assert";
import { type CliAnswer, fabricCli } from "./cli.ts";
import { TestFabric } from "./fabric.ts";
import { must, TestGuest } from "./guests.ts";
import { Cable } from "./net_namespace.ts";
import { TEST_TOKEN } from "./token.ts";
import { setUplink } from "./uplinks.ts";
import { until } from "./wait.ts";

/** The VF that the guest is on, at both ends. */
export const VF = 1;
export const POLICY = { vlan: 100, qos: 3, maxTxRate: 5000, trust: true };
export const DEFAULTS = { vlan: 0, qos: 0, maxTxRate: 0, trust: false };

/** The scene. */
export class MovesScene implements AsyncDisposable {
  readonly fabrics: readonly [TestFabric, TestFabric];
  /** On VF 0 of the first fabric; it stays there. */
  readonly peer: TestGuest;
  readonly ip: string;
  readonly mac: string;
  /** Between the two fabrics: the first one's end of the cable. */
  readonly interface: string;
  at: 0 | 1 = 0;
  readonly #owned: AsyncDisposableStack;

  private constructor(fabrics: [TestFabric, TestFabric], cable: Cable, owned: AsyncDisposableStack) {
    this.fabrics = fabrics;
    this.interface = cable.ends[0];
    this.#owned = owned;
    this.peer = TestGuest.of(fabrics[0], 0);
    this.ip = fabrics[0].info.guests[VF]?.ip ?? "";
    this.mac = fabrics[0].vf(VF).mac;
  }

  static async start(): Promise<MovesScene> {
    await using owned = new AsyncDisposableStack();
    const cable = owned.use(await Cable.make());
    const near = owned.use(await TestFabric.start(2, ["--guests", "2"]));
    const far = owned.use(
      await TestFabric.start(3, [
        ...["--guests", "2", "--guest-args=--incoming --queue-pairs 2", "--guest-args=--incoming"],
      ]),
    );
    for (const [i, fabric] of [near, far].entries()) {
      await setUplink(fabric, { kind: "packet", interface: cable.ends[i] as string });
    }
    await near.patch(0, { vlan: POLICY.vlan });
    await near.patch(VF, POLICY);
    return new MovesScene([near, far], cable, owned.move());
  }

  /** The fabric where the guest is, and the other one. */
  get ends(): [TestFabric, TestFabric] {
    const [near, far] = this.fabrics;
    return this.at === 0 ? [near, far] : [far, near];
  }

  /** The guest, where it is. */
  get guest(): TestGuest {
    return this.#seat(this.at);
  }

  #seat(at: 0 | 1): TestGuest {
    const api = this.fabrics[at].info.guests[VF]?.api ?? "";
    return new TestGuest({ api, ip: this.ip }, `${this.fabrics[at].info.api}/api/v1/vfs/${VF}`);
  }

  /** The API of the seat to which the guest would move. */
  get emptySeat(): string {
    return this.#seat(this.at === 0 ? 1 : 0).api;
  }

  /** The words of `fabric` that move the guest to the other fabric. */
  words(...options: string[]): string[] {
    const [from, to] = this.ends;
    return ["--run-dir", from.runDir, "--json", "migrate", String(VF), "--to-run-dir", to.runDir, ...options];
  }

  /** `fabric migrate`, to the other fabric. */
  migrate(...options: string[]): Promise<CliAnswer> {
    return fabricCli(this.words(...options), { RINGFABRIC_TO_TOKEN: TEST_TOKEN });
  }

  /** Moves the guest to the other fabric; answers for how long it stood still. */
  async move(...options: string[]): Promise<number> {
    const { code, out, err } = await this.migrate(...options);
    assertEquals(code, 0, err);
    this.at = this.at === 0 ? 1 : 0;
    const { downtimeMs, note } = JSON.parse(out);
    assertEquals(note, undefined);
    return downtimeMs;
  }

  /** The guest is where it is said to be, and nowhere else; its VF has its address and policy, and no other one has. */
  async check(): Promise<void> {
    const wanted = this.at === 0 ? "running waiting" : "waiting running";
    await until(`the seats to be ${wanted}`, async () => (await this.#seats()).join(" ") === wanted);
    const views = await Promise.all(this.fabrics.map((fabric) => fabric.get("/api/v1/vfs")));
    const owners = views.map((vfs) => vfs.filter(({ mac }: { mac: string }) => mac === this.mac).length);
    assertEquals(owners, this.at === 0 ? [1, 0] : [0, 1]);
    const of = (vf: Record<string, unknown>) => Object.fromEntries(Object.keys(POLICY).map((key) => [key, vf[key]]));
    assertEquals([of(views[this.at][VF]), of(views[1 - this.at][VF])], [POLICY, DEFAULTS]);
    await this.reached();
  }

  #seats(): Promise<string[]> {
    return Promise.all(this.fabrics.map(async (fabric) => {
      const guests = await must(`${fabric.url("vf")}/api/v1/guests`);
      return guests.find(({ port }: { port: string }) => port === String(VF)).seat;
    }));
  }

  /** The guest answers its peer, and reaches it. */
  async reached(): Promise<void> {
    await this.peer.reaches(this.ip);
    await this.guest.reaches(this.peer.ip);
  }

  /** Waits until a guest's copy is on its way. */
  async leaving(): Promise<void> {
    await until("the guest to leave", async () => {
      const { state, transfer } = await must(`${this.guest.api}/api/v1/departure`).catch(() => ({}));
      return state === "running" && transfer.bytesSent > 0;
    });
  }

  /** What came of a stream to or from the guest is what was sent: nothing twice, nothing out of order, little lost. */
  async streamIsWhole(flow: number, sent: number, by: TestGuest, lostMax: number): Promise<void> {
    const got = await until(`${sent} frames, but ${lostMax}`, async () => {
      const got = await by.flow(flow);
      return got && got.received + lostMax >= sent ? got : undefined;
    }).catch(async (error) => {
      throw new Error(`${(error as Error).message}: ${JSON.stringify(await by.flow(flow))}`);
    });
    assertEquals([got.duplicates, got.reordered], [0, 0]);
    assert(got.lost <= lostMax, `${got.lost} frames were lost`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned[Symbol.asyncDispose]();
  }
}
