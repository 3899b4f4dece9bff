/**
 * The guest's line to its hypervisor (the vf service): it reports that it is there and which data path it is on, hears
 * what its interface is to be, and passes its own wishes on. Control never goes by the data path.
 */
import { ApiError, GuestConfig, type GuestReport, type LinkPatch, log, oneLine, Peer } from "../../shared/api/mod.ts";

const REPORT_MS = 1000;
const RETRY_MS = 200;
const TIMEOUT_MS = 5000;

/** A hypervisor's API, and which of its ports this guest is on. */
export interface HypervisorOptions {
  url: string;
  port: string;
  token: string | undefined;
}

/** The line. */
export class Hypervisor {
  readonly #peer: Peer;
  readonly #path: string;
  readonly #report: () => Omit<GuestReport, "first">;
  readonly #apply: (config: GuestConfig) => void;
  #closed = false;
  /** Whether the hypervisor knows this guest. */
  #answered = false;
  #wake: () => void = () => {};
  readonly #first = Promise.withResolvers<void>();
  readonly #running: Promise<void>;

  constructor(
    options: HypervisorOptions,
    report: () => Omit<GuestReport, "first">,
    apply: (config: GuestConfig) => void,
  ) {
    this.#peer = new Peer("the hypervisor", options.url, options.token, { timeoutMs: TIMEOUT_MS });
    this.#path = `/api/v1/guests/${options.port}`;
    this.#report = report;
    this.#apply = apply;
    this.#running = this.#run();
  }

  /** Resolves when the hypervisor has answered once. */
  get ready(): Promise<void> {
    return this.#first.promise;
  }

  async #run(): Promise<void> {
    let trouble = "";
    while (!this.#closed) {
      let ok = false;
      try {
        const report = { ...this.#report(), first: !this.#answered } satisfies GuestReport;
        this.#apply(GuestConfig.parse(await this.#peer.ask("PUT", this.#path, report)));
        this.#answered = true;
        this.#first.resolve();
        ok = true;
        trouble = "";
      } catch (error) {
        const text = oneLine(error);
        if (text !== trouble) log("info", "guest", `waiting for the hypervisor: ${text}`);
        trouble = text;
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ok ? REPORT_MS : RETRY_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Reports at once. */
  reportNow(): void {
    this.#wake();
  }

  /** Asks for a change of the interface: granted and in force, or refused with the reason. */
  async wish(patch: LinkPatch): Promise<void> {
    if (!this.#answered) throw new ApiError(503, "the hypervisor has not answered this guest yet: try again");
    this.#apply(GuestConfig.parse(await this.#peer.ask("PATCH", `${this.#path}/link`, patch)));
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
    await this.#running;
  }
}
