/** The services that a change of mode is made with. */
import { beforeNextLook } from "../../shared/async/mod.ts";
import {
  type DataPath,
  type DataPathChange,
  type EmulatedPath,
  type HoldGrant,
  type LeaseView,
  type LinkPatch,
  msLeft,
  type NicView,
  Peer,
  type PortState,
  type TakenBack,
  Unanswered,
  type Vf,
  type VportView,
} from "../../shared/api/mod.ts";

/** How long another process of a service may take to go on where one has died. */
const SUCCESSION_MS = 5000;

/** Where the PF has a port. */
function pathOf(port: string): string {
  return port.startsWith("vport") ? `/api/v1/vports/${port.slice(5)}` : `/api/v1/vfs/${port}`;
}

/** PF, NIC and vhost, as the vf service needs them. */
export class Peers {
  readonly #pf: Peer;
  readonly #nic: Peer;
  readonly #vhost: Peer;
  readonly token: string | undefined;

  constructor(urls: { pf: string; nic: string; vhost: string }, token: string | undefined) {
    this.token = token;
    this.#pf = new Peer("the PF", urls.pf, token);
    this.#nic = new Peer("the NIC", urls.nic, token);
    this.#vhost = new Peer("the vhost service", urls.vhost, token);
  }

  vf(vf: number): Promise<Vf> {
    return this.#pf.ask("GET", `/api/v1/vfs/${vf}`);
  }

  /** Passes a guest's wish on to the PF, which decides. */
  async wish(port: string, wish: LinkPatch): Promise<void> {
    await this.#pf.ask("PATCH", `${pathOf(port)}/guest`, wish);
  }

  /** A guest has booted on a port: the groups that the one before it had joined are not its own. */
  async leaveGroups(port: string): Promise<void> {
    const { guestMulticast } = await this.config(port);
    if (guestMulticast !== null) await this.#pf.ask("PATCH", pathOf(port), { guestMulticast: null });
  }

  /** What a port's interface is to be. */
  async config(port: string): Promise<Vf | VportView> {
    return await this.#pf.ask("GET", pathOf(port));
  }

  /** The link that ports with linkState auto have. */
  async carrier(): Promise<"up" | "down"> {
    return (await this.#pf.ask<NicView>("GET", "/api/v1/nic")).carrier;
  }

  /** Holds a VF's frames; answers the token with which its guest may attach, and by which hold the NIC will know it. */
  async hold(vf: number, deadlineMs: number): Promise<HoldGrant> {
    return await this.#nic.ask("POST", `/api/v1/vfs/${vf}/hold`, { deadlineMs });
  }

  async release(vf: number): Promise<void> {
    await this.#askAgain(this.#nic, "DELETE", `/api/v1/vfs/${vf}/hold`);
  }

  /** Takes a VF back from the guest that drives it, if one does: at once and for good. */
  async takeBack(vf: number): Promise<TakenBack> {
    return await this.#askAgain(this.#nic, "DELETE", `/api/v1/vfs/${vf}/lease`);
  }

  /** Who drives a VF, by the NIC's word. */
  async leaseOf(vf: number): Promise<LeaseView> {
    return await this.#nic.ask("GET", `/api/v1/vfs/${vf}/lease`);
  }

  /** `looks`: for somebody who is told at once if vhost does not answer. */
  port(vf: number | string, looks = false): Promise<PortState> {
    const path = `/api/v1/ports/${vf}`;
    return looks ? this.#vhost.ask("GET", path) : this.#askAgain(this.#vhost, "GET", path);
  }

  ports(): Promise<PortState[]> {
    return this.#vhost.ask("GET", "/api/v1/ports");
  }

  /** `emulatedPath`: how frames go in emulated mode, if that is to change. */
  async setDataPath(port: number | string, dataPath: DataPath, emulatedPath?: EmulatedPath): Promise<void> {
    const change: DataPathChange = { dataPath, ...(emulatedPath === undefined ? {} : { emulatedPath }) };
    await this.#askAgain(this.#vhost, "PUT", `/api/v1/ports/${port}/dataPath`, change);
  }

  /** Asks a service; if its process dies over it, the one that goes on is asked again. For requests that may come twice. */
  async #askAgain<T>(peer: Peer, method: "GET" | "PUT" | "DELETE", path: string, body?: unknown): Promise<T> {
    const sinceMs = performance.now();
    const endMs = sinceMs + Math.min(SUCCESSION_MS, msLeft());
    for (;;) {
      try {
        return await peer.ask<T>(method, path, body);
      } catch (error) {
        if (!(error instanceof Unanswered) || performance.now() > endMs) throw error;
        await beforeNextLook(sinceMs);
      }
    }
  }

  /** The vport that is called `vport3`. */
  vport(port: string): Promise<VportView> {
    return this.#pf.ask("GET", pathOf(port));
  }

  /** Allots a free VF to a vport's guest; answers which. */
  async allotVf(port: string): Promise<number> {
    return (await this.#pf.ask<VportView>("POST", `${pathOf(port)}/vf`, {})).vf ?? -1;
  }

  /** Takes it back. */
  async returnVf(port: string): Promise<void> {
    await this.#pf.ask("DELETE", `${pathOf(port)}/vf`);
  }
}
