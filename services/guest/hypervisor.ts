/**
 * The guest's line to its hypervisor (the vf service): it reports that it is there and which data path it is on, hears
 * what its interface is to be, and passes its own wishes on. Control never goes by the data path.
 */
import {
  ApiError,
  GuestConfig,
  type GuestReport,
  type GuestSeat,
  type LinkPatch,
  log,
  oneLine,
  Peer,
} from "../../shared/api/mod.ts";

const REPORT_MS = 1000;
/** And while it waits for its VF to get the address of the guest that has come, or has left. */
const HURRY_MS = 50;
const RETRY_MS = 200;
const TIMEOUT_MS = 5000;

/** A hypervisor's API, and which of its ports this guest is on. */
export interface HypervisorOptions {
  url: string;
  port: string;
  token: string | undefined;
}

/** Puts in force what the interface is to be; `asked`: what was so in the seat when that was asked. */
type Apply = (config: GuestConfig, asked: GuestSeat) => void;

/** The line. */
export class Hypervisor {
  readonly #peer: Peer;
  readonly #path: string;
  readonly #report: () => Omit<GuestReport, "first">;
  readonly #apply: Apply;
  #closed = false;
  /** Whether what the interface is to be is waited for. */
  isAwaited: () => boolean = () => false;
  /** Whether the hypervisor knows this guest. */
  #answered = false;
  #wake: () => void = () => {};
  /** Something has changed since the last report was begun. */
  #isStale = false;
  readonly #first = Promise.withResolvers<void>();
  readonly #running: Promise<void>;

  constructor(
    options: HypervisorOptions,
    report: () => Omit<GuestReport, "first">,
    apply: Apply,
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
      this.#isStale = false;
      try {
        const report = { ...this.#report(), first: !this.#answered } satisfies GuestReport;
        this.#apply(GuestConfig.parse(await this.#peer.ask("PUT", this.#path, report)), report.seat);
        this.#answered = true;
        this.#first.resolve();
        ok = true;
        trouble = "";
      } catch (error) {
        const text = oneLine(error);
        if (text !== trouble) log("info", "guest", `waiting for the hypervisor: ${text}`);
        trouble = text;
      }
      if (this.#isStale && ok) continue;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, this.isAwaited() ? HURRY_MS : ok ? REPORT_MS : RETRY_MS);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** Reports at once. */
  reportNow(): void {
    this.#isStale = true;
    this.#wake();
  }

  /** Asks for a change of the interface: granted and in force, or refused with the reason. */
  async wish(patch: LinkPatch): Promise<void> {
    if (!this.#answered) throw new ApiError(503, "the hypervisor has not answered this guest yet: try again");
    const { seat } = this.#report();
    this.#apply(GuestConfig.parse(await this.#peer.ask("PATCH", `${this.#path}/link`, patch)), seat);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#wake();
    await this.#running;
  }
}
