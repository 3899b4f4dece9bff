/**
 * The vhost service as a process: it serves front-ends, or stands by for the process that does and goes on in its place when
 * that dies. Both are the same program with the same options; whoever comes second stands by.
 */
import type { OpenAPIHono } from "@hono/zod-openapi";
import { log, serve, type ServiceUpgrade, stopServing } from "../../shared/api/mod.ts";
import type { Channel } from "../../shared/device/mod.ts";
import { type Reactor, UnixListener } from "../../shared/os/mod.ts";
import { serveWhenFree, Upgrades } from "../../shared/standby/mod.ts";
import type { Emulation } from "./emulation.ts";
import type { Ports } from "./ports.ts";
import type { SoftwareSwitch } from "./software_switch.ts";
import {
  type Change,
  fdsOf,
  type Replica,
  type Replicated,
  valueOf,
  VhostFollower,
  type VhostMirror,
} from "./standby/mod.ts";

/** What a process of the service is made of. */
export interface ProcessParts {
  emulation: Emulation;
  ports: Ports;
  software: SoftwareSwitch;
  replica: Replica;
  mirror: VhostMirror;
  api: OpenAPIHono;
  reactor: Reactor;
  listen: { hostname: string; port: number };
}

/** A process of the service. */
export class VhostProcess {
  readonly #parts: ProcessParts;
  #http: ReturnType<typeof serve> | undefined;
  #standbys: UnixListener | undefined;
  #door: Replicated | undefined;
  readonly #upgrades: Upgrades<Change>;
  #following: Promise<void> = Promise.resolve();

  constructor(parts: ProcessParts) {
    this.#parts = parts;
    this.#upgrades = new Upgrades(parts.mirror, "the vhost service", () => this.#handOver());
  }

  /** Serves front-ends from the start, until `close`. `standbys`: where those come who stand by. */
  drive(standbys: UnixListener | undefined): Promise<void> {
    const { ports, api, listen } = this.#parts;
    this.#http = serve(api, listen);
    ports.begin();
    if (standbys) this.#takeStandbys(standbys);
    return this.#following = ports.follow();
  }

  #takeStandbys(listener: UnixListener): void {
    const { emulation: { engine }, mirror, replica } = this.#parts;
    this.#standbys = listener;
    this.#door = replica.keep("door", () => ({ door: { value: { path: listener.path }, fds: [listener.fd] } }));
    mirror.onJoin = (heir) => {
      mirror.note({ kind: "engine", heir }, [engine.state, engine.life]);
      replica.tellAll();
    };
    void mirror.serve(listener);
  }

  /**
   * Stands by for the process at the other end of `channel`; resolves when it knows everything. What is answered resolves
   * when that process has ended on purpose, and rejects if this one cannot go on in its place.
   */
  async standBy(channel: Channel): Promise<{ ended: Promise<void> }> {
    const follower = new VhostFollower(channel);
    await follower.join();
    return { ended: this.#follow(follower) };
  }

  async #follow(follower: VhostFollower): Promise<void> {
    if (!await follower.follow()) return;
    const { emulation, ports, software, api, listen, reactor } = this.#parts;
    const started = performance.now();
    ports.wishes.expectListener();
    software.adopt(follower);
    await ports.adopt(follower);
    emulation.takeOver(follower.engineState, software);
    ports.startAll();
    log("warn", "vhost", `took over from a process that died: ${(performance.now() - started).toFixed(1)} ms`);
    this.#following = ports.follow();
    for (const [, object] of follower.objects("door")) {
      const { path } = valueOf<{ path: string }>(object, "door");
      for (const fd of fdsOf(object, "door")) this.#takeStandbys(UnixListener.adopt(path, fd, reactor));
    }
    await follower.gone();
    this.#http = await serveWhenFree(api, listen);
    await this.#following;
  }

  /** Where the API listens: at once, or after a take-over. */
  get address(): { hostname: string; port: number } {
    return this.#http ? this.#http.addr as Deno.NetAddr : this.#parts.listen;
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
    const { emulation, mirror } = this.#parts;
    if (!await mirror.confirm()) return;
    const goOn = emulation.engine.standStill();
    mirror.commit();
    await mirror.told;
    if (mirror.standby.state === "ready") Deno.exit(0);
    goOn();
  }

  /** Ends on purpose. Nobody goes on in its place, unless `isAlone`: its fabric goes on. */
  async close(isAlone: boolean): Promise<void> {
    const { emulation, ports, software, mirror, reactor } = this.#parts;
    if (isAlone) await this.#upgrades.handOver();
    mirror.close();
    this.#door?.end();
    this.#standbys?.close();
    software.close();
    await ports.close();
    await this.#following;
    await emulation.close();
    await reactor.close();
    if (this.#http) await stopServing(this.#http);
  }
}
