/**
 * The NIC as a process: it drives the fabric, or stands by for the process that does and goes on in its place when that
 * dies. Both are the same program with the same options; whoever comes second stands by.
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { log, serve, type ServiceUpgrade, stopServing } from "../../shared/api/mod.ts";
import type { Channel } from "../../shared/device/mod.ts";
import { UnixListener } from "../../shared/os/mod.ts";
import type { Reactor } from "../../shared/os/mod.ts";
import { serveWhenFree, Upgrades } from "../../shared/standby/mod.ts";
import { DeviceServer } from "./device.ts";
import type { Nic } from "./nic.ts";
import { NicFollower } from "./standby/follower.ts";
import type { Change } from "./standby/messages.ts";
import { noteEverything } from "./standby/notes.ts";
import type { Uplinks } from "./uplinks.ts";

/** What a process of the NIC is made of. */
export interface ProcessParts {
  nic: Nic;
  uplinks: Uplinks;
  api: OpenAPIHono;
  reactor: Reactor;
  listen: { hostname: string; port: number };
  /** Device sockets: the hypervisor's, and the guests' if there is one; and where standbys come, if any may. */
  socket: string;
  guestSocket: string | undefined;
  standbySocket: string | undefined;
}

type HttpServer = ReturnType<typeof serve>;

/** A process of the NIC. */
export class NicProcess {
  readonly #parts: ProcessParts;
  #servers: DeviceServer[] = [];
  #standbys: UnixListener | undefined;
  #http: HttpServer | undefined;
  readonly #upgrades: Upgrades<Change>;

  constructor(parts: ProcessParts) {
    this.#parts = parts;
    this.#upgrades = new Upgrades(parts.nic.mirror, "the NIC", () => this.#handOver());
  }

  /** Drives the fabric from the start. `standbys`: where those come who stand by. */
  drive(standbys: UnixListener | undefined): void {
    const { api, listen, socket, guestSocket } = this.#parts;
    this.#http = serve(api, listen);
    this.#serve([socket, ...(guestSocket === undefined ? [] : [guestSocket])]);
    if (standbys) this.#takeStandbys(standbys);
  }

  #serve(sockets: readonly (string | UnixListener)[]): void {
    const { nic, reactor } = this.#parts;
    this.#servers = sockets.map((at, i) => new DeviceServer(nic, at, reactor, i > 0));
  }

  #takeStandbys(listener: UnixListener): void {
    const { nic, uplinks } = this.#parts;
    this.#standbys = listener;
    nic.mirror.onJoin = (heir) =>
      noteEverything(nic.mirror, {
        ...{ instance: nic.instance, heir, state: nic.engine.state, life: nic.engine.life, programme: nic.programme },
        listeners: [...this.#servers.map(({ listener }) => listener), listener],
        ...{ uplinks: uplinks.all, leases: nic.leases.all, holds: nic.leases.holds.all, watchers: nic.watchers },
      });
    void nic.mirror.serve(listener);
  }

  /**
   * Stands by for the process at the other end of `channel`; resolves when it knows everything. What is answered resolves
   * when that process has ended on purpose, and rejects if this one cannot go on in its place.
   */
  async standBy(channel: Channel): Promise<{ ended: Promise<void> }> {
    const { nic, reactor } = this.#parts;
    const follower = new NicFollower(nic, channel, reactor);
    await follower.join();
    return { ended: this.#follow(follower) };
  }

  async #follow(follower: NicFollower): Promise<void> {
    if (!await follower.follow()) return;
    const started = performance.now();
    follower.takeOver();
    this.#adopt(follower);
    log("warn", "nic", `took over from a process that died: ${(performance.now() - started).toFixed(1)} ms`);
    await follower.gone();
    const { uplinks } = this.#parts;
    void uplinks.takeOver(follower.uplinks).catch((error) =>
      log("warn", "nic", `an uplink: ${(error as Error).message}`)
    );
    this.#http = await serveWhenFree(this.#parts.api, this.#parts.listen);
    // From now on this process drives the fabric: it ends only when it is told to.
    await new Promise<never>(() => {});
  }

  /** Goes on with the sockets and the connections. */
  #adopt({ sockets, connections }: NicFollower): void {
    const { nic, socket, guestSocket, standbySocket } = this.#parts;
    const listeners = [socket, guestSocket].flatMap((path) => sockets.get(path ?? "") ?? []);
    this.#serve(listeners);
    for (const connection of connections.values()) this.#servers[connection.guest ? 1 : 0]?.adopt(connection);
    // Their owners died before the NIC did.
    for (const lease of nic.leases.all) if (!lease.connection) nic.leases.orphan(lease);
    const standbys = sockets.get(standbySocket ?? "");
    if (standbys) this.#takeStandbys(standbys);
  }

  /** Has a new process take over. Throws ApiError why it cannot be: then this one goes on. */
  upgrade(): Promise<ServiceUpgrade> {
    return this.#upgrades.begin();
  }

  /**
   * Ends between two bursts, with everything told: whoever stands by sees it as a death, and goes on. Resolves if nobody
   * would: then this process goes on.
   */
  async #handOver(): Promise<void> {
    const { nic, uplinks } = this.#parts;
    if (!await nic.mirror.confirm()) return;
    await uplinks.handOver();
    if (await nic.mirror.confirm()) {
      const goOn = nic.engine.standStill();
      nic.mirror.commit();
      await nic.mirror.told;
      if (nic.standby.state === "ready") Deno.exit(0);
      goOn();
    }
    await uplinks.takeBack();
  }

  /** Where the API listens: at once, or after a take-over. */
  get address(): { hostname: string; port: number } {
    return this.#http ? this.#http.addr as Deno.NetAddr : this.#parts.listen;
  }

  /** Ends on purpose. Nobody goes on in its place, unless `isAlone`: its fabric goes on. */
  async close(isAlone: boolean): Promise<void> {
    const { nic, uplinks, reactor } = this.#parts;
    if (isAlone) await this.#upgrades.handOver();
    nic.mirror.close();
    this.#standbys?.close();
    await uplinks.close();
    await Promise.all(this.#servers.map((server) => server.close()));
    await nic.close();
    await reactor.close();
    if (this.#http) await stopServing(this.#http);
  }
}
