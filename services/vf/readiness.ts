/** Whether a mode can be changed now: that takes the PF, the NIC and vhost, and each of them is asked. */
import { Peer } from "../../shared/api/mod.ts";

/** How long a service may take to say that it is ready, and for how long its word is kept. */
const TIMEOUT_MS = 2000;
const KEPT_MS = 1000;

/** The services of a fabric, as the vf service sees whether they are ready. */
export class PeersReadiness {
  readonly #peers: Peer[];
  #last: Promise<string | undefined> = Promise.resolve(undefined);
  #askAgainAt = -Infinity;

  constructor(urls: { pf: string; nic: string; vhost: string }) {
    this.#peers = [
      new Peer("the PF", urls.pf, undefined),
      new Peer("the NIC", urls.nic, undefined),
      new Peer("the vhost service", urls.vhost, undefined),
    ];
  }

  /** Why no mode can be changed now; `undefined` if it can. Whoever asks often has them asked once a second. */
  look(): Promise<string | undefined> {
    if (performance.now() >= this.#askAgainAt) {
      this.#askAgainAt = performance.now() + KEPT_MS;
      this.#last = this.#ask();
    }
    return this.#last;
  }

  async #ask(): Promise<string | undefined> {
    const said = await Promise.all(this.#peers.map((peer) => peer.unreadiness(TIMEOUT_MS)));
    const reasons = said.filter((reason) => reason !== undefined);
    return reasons.length === 0 ? undefined : reasons.join("; ");
  }
}
