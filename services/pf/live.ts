/**
 * The live stream: NIC and software switch are read once a second, for all listeners together, and not at all while
 * nobody listens. What has changed is worked out and written once for all who want the same.
 */
import {
  frame,
  type LiveState,
  type LiveWish,
  type NicState,
  type PortState,
  type VportState,
  withDeadline,
} from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import { RecentLatency } from "./latency.ts";
import { fabricDocument, queuesDocument, type Reading, vfDocument } from "./live_views.ts";
import { mergePatch } from "./merge_patch.ts";
import type { SettingsInForce } from "./settings_in_force.ts";

const PERIOD_MS = 1000;
/** A service that takes longer to answer is shown as it was. */
const ANSWER_MS = 2000;

/** What the stream is made of. */
export interface LiveParts {
  settings: SettingsInForce;
  links: Links;
  events: Events;
  runDir: string;
}

/** A document that some listeners are told of. */
class Track {
  readonly #make: (reading: Reading) => unknown;
  document: unknown;

  constructor(make: (reading: Reading) => unknown, reading: Reading) {
    this.#make = make;
    this.document = make(reading);
  }

  /** What has changed since the reading before, as a frame; none if nothing has. */
  next(reading: Reading): string | undefined {
    const before = this.document;
    this.document = this.#make(reading);
    const patch = mergePatch(before, this.document);
    return patch === undefined ? undefined : frame(patch, { event: "patch" });
  }
}

interface Listener {
  wish: LiveWish;
  send: (frame: string) => void;
  /** Whether it has the whole document. */
  hasState: boolean;
}

/** The documents that a listener is told of, by name: the first one whole, then what the others add to it. */
function documentsOf({ vf, isAlone }: LiveWish): [string, (reading: Reading) => unknown][] {
  if (vf !== undefined && isAlone) return [[`vf ${vf}`, (reading) => vfDocument(reading, vf)]];
  const whole: [string, (reading: Reading) => unknown] = ["fabric", fabricDocument];
  return vf === undefined ? [whole] : [whole, [`queues ${vf}`, (reading) => queuesDocument(reading, vf)]];
}

/** The latency histograms of everything that sends, by the names of the ports. */
function histogramsOf({ vfs, uplink }: NicState, vports: readonly VportState[]): Map<string, readonly number[]> {
  return new Map([
    ...vfs.map(({ latency }, id): [string, readonly number[]] => [`vf${id}`, latency.counts]),
    ...vports.map(({ id, latency }): [string, readonly number[]] => [`vport${id}`, latency.counts]),
    ["uplink", uplink.latency.counts],
  ]);
}

/** Everybody who listens, and what they are told. */
export class Live {
  readonly #parts: LiveParts;
  readonly #listeners = new Set<Listener>();
  readonly #tracks = new Map<string, Track>();
  #timer: ReturnType<typeof setInterval> | undefined;
  #state: NicState | undefined;
  #readAtMs: number | undefined;
  #last: Reading | undefined;
  readonly #recent = new RecentLatency();
  #isReading = false;

  constructor(parts: LiveParts) {
    this.#parts = parts;
  }

  /** Sends frames to one listener until the returned function is called. */
  subscribe(wish: LiveWish, send: (frame: string) => void): () => void {
    const listener: Listener = { wish, send, hasState: false };
    const stopEvents = this.#sendEvents(wish, send);
    this.#listeners.add(listener);
    this.#timer ??= setInterval(() => void this.#tell(), PERIOD_MS);
    const isFresh = this.#last !== undefined && Date.now() - this.#last.atMs < PERIOD_MS;
    if (isFresh) this.#sendState(listener);
    else void this.#tell();
    return () => {
      stopEvents();
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) this.close();
    };
  }

  #sendEvents({ events: most, vf, isAlone }: LiveWish, send: (frame: string) => void): () => void {
    if (most === undefined) return () => {};
    const { events } = this.#parts;
    const tell: Parameters<Events["subscribe"]>[0] = (event, id, at) => {
      if (isAlone && !("vf" in event && event.vf === vf)) return;
      send(frame({ ...event, at }, { event: "happened", id }));
    };
    events.tellLatest(most, tell);
    return events.subscribe(tell);
  }

  /** Reads, and tells what has changed. */
  async #tell(): Promise<void> {
    if (this.#isReading) return;
    this.#isReading = true;
    try {
      this.#last = await this.#read();
    } finally {
      this.#isReading = false;
    }
    this.#sendPatches(this.#last);
    for (const listener of this.#listeners) if (!listener.hasState) this.#sendState(listener);
  }

  #sendPatches(reading: Reading): void {
    const joined = [...this.#listeners].filter(({ hasState }) => hasState);
    const wanted = new Set(joined.flatMap(({ wish }) => documentsOf(wish).map(([name]) => name)));
    const frames = new Map<string, string>();
    for (const [name, track] of this.#tracks) {
      const text = wanted.has(name) ? track.next(reading) : undefined;
      if (text !== undefined) frames.set(name, text);
      if (!wanted.has(name)) this.#tracks.delete(name);
    }
    for (const { wish, send } of joined) {
      for (const [name] of documentsOf(wish)) {
        const text = frames.get(name);
        if (text !== undefined) send(text);
      }
    }
  }

  #sendState(listener: Listener): void {
    const reading = this.#last as Reading;
    listener.hasState = true;
    for (const [i, [name, make]] of documentsOf(listener.wish).entries()) {
      const track = this.#tracks.get(name) ?? new Track(make, reading);
      this.#tracks.set(name, track);
      listener.send(frame(track.document, { event: i === 0 ? "state" : "patch" }));
    }
  }

  async #read(): Promise<Reading> {
    const { links: { nic, software }, settings, runDir } = this.#parts;
    const needsVports = settings.now.vports.length > 0;
    const [state, vports, ports, vhost] = await withDeadline(
      { endsMs: performance.now() + ANSWER_MS },
      () =>
        Promise.all([
          nic.state().catch(() => undefined),
          needsVports ? software.vports().catch(() => []) : [],
          this.#ports(),
          software.state().catch(() => undefined),
        ]),
    );
    const atMs = Date.now();
    if (state) {
      [this.#state, this.#readAtMs] = [state, atMs];
      this.#recent.take(atMs, histogramsOf(state, vports));
    }
    return {
      ...{ settings: settings.now, carrier: settings.carrier, runDir, services: this.#services() },
      ...{ state: this.#state, readAtMs: this.#readAtMs, vports, ports, vhost, atMs },
      recentLatency: (port) => this.#recent.of(port),
      outcome: (pool) => settings.uplinks.outcome(pool),
    };
  }

  /** Ports of the vhost service, if somebody looks at a VF whose rings are its own. */
  async #ports(): Promise<PortState[]> {
    const isEmulated = (vf: number | undefined) => vf !== undefined && this.#state?.vfs[vf]?.mode === "emulated";
    if (![...this.#listeners].some(({ wish }) => isEmulated(wish.vf))) return [];
    return await this.#parts.links.software.ports().catch(() => []);
  }

  #services(): LiveState["services"] {
    const { nic, software, modeEvents } = this.#parts.links;
    return Object.fromEntries(
      Object.entries({ nic, vhost: software, vf: modeEvents }).map(([name, { connected, sinceMs }]) => {
        return [name, { state: connected ? "up" : "away", since: sinceMs }];
      }),
    );
  }

  /** Stops reading. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#last = undefined;
    this.#tracks.clear();
  }
}
