/**
 * What somebody at a terminal waits for: nothing for a second, then a line on standard error that says so and moves. It
 * is gone before anything else is written. Programs and files never see it.
 */

/** Nothing is shown for so long: most is done by then. */
const SILENT_MS = 1000;

/** What moves at the start of the line, and the text after it. */
export interface Line {
  text: string;
  start(): unknown;
  /** Wipes it off; it is drawn again with its next move. */
  clear(): unknown;
  stop(): unknown;
}

/** How a line is shown. */
export interface ProgressOptions {
  /** Whether one may be shown at all, beside that standard error must be a terminal; asked when it is time. */
  isWanted?: () => boolean;
  /** Whether Ctrl-C ends the process here: the line is taken away first. */
  ownsSignals?: boolean;
  /** Opens a line; tests bring their own. */
  open?: (text: string) => Promise<Line>;
}

/** Whether standard error is a terminal on which a line can move. */
function isTerminal(): boolean {
  return Deno.stderr.isTerminal() && Deno.env.get("TERM") !== "dumb" && !Deno.env.has("CI");
}

/** What is waited for, on the terminal. */
export class Progress {
  readonly #isWanted: () => boolean;
  readonly #open: (text: string) => Promise<Line>;
  #ownsSignals: boolean;
  #text = "";
  #timer: ReturnType<typeof setTimeout> | undefined;
  #line: Line | undefined;
  /** Counts the ends: a line that opens after its end is not shown. */
  #ends = 0;

  constructor({ isWanted = () => true, ownsSignals = false, open }: ProgressOptions = {}) {
    this.#ownsSignals = ownsSignals;
    this.#open = open ?? (async (text) => {
      // Whoever waits for nothing does not load it.
      const { default: spinner } = await import("yocto-spinner");
      return spinner({ text, handleSignals: this.#ownsSignals });
    });
    this.#isWanted = () => isWanted() && (open !== undefined || isTerminal());
  }

  /** Leaves Ctrl-C to whoever has something to take back first. */
  leaveSignals(): void {
    this.#ownsSignals = false;
  }

  /** Says what is waited for now. */
  say(text: string): void {
    this.#text = text.replaceAll(/\p{Cc}/gu, "?");
    if (this.#line) this.#line.text = this.#text;
    else this.#timer ??= setTimeout(() => void this.#tryToShow(), SILENT_MS);
  }

  /** Says it at once: what comes next takes its time, and gives this thread none to show that. */
  async sayNow(text: string): Promise<void> {
    this.say(text);
    await this.#tryToShow();
  }

  /** Writes lines of something else to the terminal, above what is waited for. */
  aside(write: () => void): void {
    this.#line?.clear();
    write();
  }

  /** What keeps it from being shown (a permission that is not there) keeps nobody from waiting. */
  #tryToShow(): Promise<void> {
    return this.#show().catch(() => {});
  }

  async #show(): Promise<void> {
    if (this.#line || !this.#isWanted()) return;
    const ends = this.#ends;
    const line = await this.#open(this.#text);
    if (ends !== this.#ends || this.#line) return;
    line.text = this.#text;
    line.start();
    this.#line = line;
  }

  /** Nothing is waited for any more: the line is gone. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#ends++;
    this.#line?.stop();
    this.#line = undefined;
  }
}
