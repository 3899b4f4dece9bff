/**
 * A hostile guest with a shell: what its hypervisor asks over HTTP it answers as it likes. It has a front-end on its
 * port, reports like any guest, and drives a VF with the tokens that it is given, or does not.
 */
import { FrontEnd } from "./front_end.ts";
import { DirectGuest } from "./direct_guest.ts";
import type { TestFabric } from "./fabric.ts";
import { ask } from "./guests.ts";

const REPORT_MS = 200;

/** An address for a hostile guest's API that nobody uses now; the fabric is to be started with it (`--shells`). */
export function shellAddress(): string {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return `127.0.0.1:${listener.addr.port}`;
}

/** What it does when it is asked for its part of a change of mode. */
export interface Conduct {
  /** Its answer to each path; the default is an honest one. `undefined` as an answer: never. */
  answers?: Record<string, (() => Response | Promise<Response> | undefined) | undefined>;
  /** Attaches to the VF when it is told to; the answer is its own matter. */
  takes?: boolean;
  /** Gives the VF back when it is told to. */
  givesBack?: boolean;
}

/** The guest. */
export class HostileGuest implements AsyncDisposable {
  readonly port: string;
  readonly api: string;
  conduct: Conduct = {};
  /** Its driver of a VF, once it has one. */
  direct: DirectGuest | undefined;
  /** What it was given last: the VF and the token. */
  order: { vf: number; token: string } | undefined;
  readonly #fabric: TestFabric;
  readonly #server: Deno.HttpServer<Deno.NetAddr>;
  readonly frontEnd: FrontEnd;
  boot = crypto.randomUUID();
  /** On which path it says it is. */
  mode: "emulated" | "passthrough" = "emulated";
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #forever = Promise.withResolvers<Response>();

  private constructor(fabric: TestFabric, port: string, address: string, frontEnd: FrontEnd) {
    this.#fabric = fabric;
    this.port = port;
    this.frontEnd = frontEnd;
    const [hostname = "", listen] = address.split(":");
    this.#server = Deno.serve({ hostname, port: Number(listen), onListen() {} }, (request) => this.#answer(request));
    this.api = `http://${address}`;
    this.#timer = setInterval(() => void this.report().catch(() => {}), REPORT_MS);
  }

  /** A guest on a port (`2`, `vport0`), whose socket is at `socket`; its API is at `address`. */
  static async boot(fabric: TestFabric, port: string, socket: string, address: string): Promise<HostileGuest> {
    const guest = new HostileGuest(fabric, port, address, await FrontEnd.connect(socket).start());
    await guest.report();
    return guest;
  }

  /** Tells the hypervisor that it is there, and on which path it says it is. */
  async report(): Promise<void> {
    const mode = { mode: this.mode, connected: true };
    await ask(`${this.#fabric.url("vf")}/api/v1/guests/${this.port}`, "PUT", { api: this.api, boot: this.boot, mode });
  }

  /** Takes a VF with a token; throws what the NIC says. */
  async take({ vf, token }: { vf: number; token: string }): Promise<void> {
    this.direct = await DirectGuest.attachWith(this.#fabric, vf, token);
  }

  async #answer(request: Request): Promise<Response> {
    const path = new URL(request.url).pathname;
    const body = await request.bytes();
    if (path === "/api/v1/path/passthrough") {
      this.order = JSON.parse(new TextDecoder().decode(body));
      if (this.conduct.takes !== false && this.order) await this.take(this.order).catch(() => {});
      this.mode = "passthrough";
    }
    if (path === "/api/v1/path/emulated") {
      this.mode = "emulated";
      if (this.conduct.givesBack !== false) await this.direct?.device.request({ op: "detach" }).catch(() => {});
    }
    const { answers = {} } = this.conduct;
    if (path in answers) return await (answers[path]?.() ?? this.#forever.promise);
    const mode = { mode: this.mode, plugin: "advanced", version: "1.0.0", connected: true };
    return Response.json(
      path.endsWith("/plugin") ? { address: 1, bytes: 1, name: "advanced", version: "1.0.0" } : mode,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    this.#forever.resolve(new Response());
    await this.#server.shutdown();
    await this.direct?.[Symbol.asyncDispose]();
    await this.frontEnd[Symbol.asyncDispose]();
  }
}
