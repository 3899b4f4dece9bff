/** A second fabric on a cable, with one seat for a guest: guests of the first move there and back by `fabric migrate`. */
import { fabricCli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { must, TestGuest } from "../support/guests.ts";
import { Cable } from "../support/net_namespace.ts";
import { TEST_TOKEN } from "../support/token.ts";
import { setUplink } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";

const SEAT = 0;
/** What of the seat's policy a move may have changed. */
const DEFAULTS = { vlan: 0, maxTxRate: 0, trust: false, spoofCheck: true, linkState: "auto" } as const;
const HOME_MS = 120_000;
const ARRIVE_MS = 60_000;

/** A guest's seat at the first fabric. */
interface Home {
  vf: number;
  guest: TestGuest;
}

/** The second fabric, seen from the first. */
export class FarEnd implements AsyncDisposable {
  readonly fabric: TestFabric;
  readonly #near: TestFabric;
  readonly #cable: Cable;
  readonly #mac: string;

  private constructor(near: TestFabric, fabric: TestFabric, cable: Cable) {
    [this.#near, this.fabric, this.#cable] = [near, fabric, cable];
    this.#mac = fabric.vf(SEAT).mac;
  }

  static async start(near: TestFabric): Promise<FarEnd> {
    await using owned = new AsyncDisposableStack();
    const cable = owned.use(await Cable.make());
    const fabric = owned.use(await TestFabric.start(1, ["--guests", "1", "--guest-args=--incoming"]));
    await setUplink(fabric, { kind: "packet", interface: cable.ends[1] });
    owned.move();
    return new FarEnd(near, fabric, cable);
  }

  /** The first fabric's end of the cable. */
  get interface(): string {
    return this.#cable.ends[0];
  }

  get #seat(): string {
    return this.fabric.info.guests[SEAT]?.api ?? "";
  }

  async #migrate([from, vf]: [TestFabric, number], [to, toVf]: [TestFabric, number]): Promise<void> {
    const words = ["--run-dir", from.runDir, "migrate", String(vf), "--to-run-dir", to.runDir, "--to-vf", String(toVf)];
    const { code, out, err } = await fabricCli(words, { RINGFABRIC_TO_TOKEN: TEST_TOKEN });
    if (code !== 0) throw new Error(`fabric migrate ${vf} to ${to === this.#near ? "here" : "there"}: ${err}${out}`);
  }

  /** Moves a guest there; once `peer` has answered it, back. */
  async visit({ vf, guest }: Home, peer: string): Promise<void> {
    await this.#migrate([this.#near, vf], [this.fabric, SEAT]);
    const there = new TestGuest({ api: this.#seat, ip: guest.ip });
    await until("the guest to be heard of there", async () => {
      const { received } = await there.ping(peer, 1, { timeoutMs: 200 }).catch(() => ({ received: 0 }));
      return received === 1;
    }, ARRIVE_MS);
    await this.#migrate([this.fabric, SEAT], [this.#near, vf]);
  }

  /** Has a guest run where it belongs, however its move ended: moves it back, or gives the addresses back by hand. */
  async bringHome({ vf, guest }: Home): Promise<void> {
    let seats = "";
    const { mac } = this.#near.vf(vf);
    const look = async () => {
      const [here, there, nearVf, farVf] = await Promise.all([
        ...[guest.api, this.#seat].map(async (api) => (await must(`${api}/api/v1/arrival`)).seat as string),
        this.#near.get(`/api/v1/vfs/${vf}`),
        this.fabric.get(`/api/v1/vfs/${SEAT}`),
      ]);
      seats = `${here} here, ${there} there, ${nearVf.mac} here, ${farVf.mac} there`;
      if (there === "running") {
        await this.#migrate([this.fabric, SEAT], [this.#near, vf]);
        return false;
      }
      if (nearVf.mac === mac && farVf.mac === this.#mac) {
        await this.fabric.patch(SEAT, DEFAULTS);
        return here === "running" && there === "waiting";
      }
      await this.fabric.patch(SEAT, { mac: this.#mac });
      await this.#near.patch(vf, { mac });
      return false;
    };
    let failure = "";
    const isHome = () => look().catch((error) => void (failure = (error as Error).message));
    await until(`guest ${vf} to be home`, isHome, HOME_MS, 200).catch((error) => {
      throw new Error(`${(error as Error).message}; still: ${seats}; ${failure}`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.fabric[Symbol.asyncDispose]();
    await this.#cable[Symbol.asyncDispose]();
  }
}
