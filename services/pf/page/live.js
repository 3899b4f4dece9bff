/**
 * What the page knows of the fabric: the document of the live stream, kept up to date by its patches, and what each port
 * counted in the last minutes. The page goes on showing what it had while the PF is away.
 */
import { events, Refusal } from "./api.js";

/** Seconds that plots look back. */
const HISTORY_SECONDS = 300;
const RETRY_MS = 1000;
/** A page that nobody sees stops listening after this. */
const HIDDEN_MS = 30_000;
const EVENTS_KEPT = 1000;
const EVENTS_ASKED = 300;
/** Two readings further apart than this are not joined by a line. */
const GAP_SECONDS = 10;

/** Applies a JSON merge patch (RFC 7396) to a document, which it changes. */
export function applyPatch(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete target[name];
    else if (typeof value === "object" && !Array.isArray(value)) {
      const before = target[name];
      target[name] = applyPatch(typeof before === "object" && !Array.isArray(before) ? before : {}, value);
    } else target[name] = value;
  }
  return target;
}

/** Counters of everything that has some, by port: vf0, vport0, uplink, pf. */
function countersOf({ vfs = {}, vports = {}, nic }) {
  const all = {};
  for (const { id, counters } of Object.values(vfs)) all[`vf${id}`] = counters;
  for (const { id, counters } of Object.values(vports)) all[`vport${id}`] = counters;
  if (nic) Object.assign(all, { uplink: nic.uplink.counters ?? {}, pf: nic.counters ?? {} });
  return all;
}

/** How long a port's frames waited in the last seconds, if that is known. */
function recentLatency({ vfs = {}, vports = {}, nic }, port) {
  const [, kind, id] = /^(vf|vport)(\d+)$/.exec(port) ?? [];
  const of = kind === undefined ? nic?.[port] : (kind === "vf" ? vfs : vports)[id];
  return of?.latency?.recent;
}

/** The fabric, as this page has it. */
export class Live {
  /** The document; undefined until the first one has come. */
  state = undefined;
  /** connecting, live, or lost. */
  line = "connecting";
  lostSince = undefined;
  /** Latest first. */
  happened = [];
  /** Samples by port: {at, seconds, delta, latency}, oldest first. Seconds is undefined after a gap. */
  history = new Map();
  /** Samples of the engine: {at, busy}. */
  engine = [];
  onChange = () => {};
  onEvent = () => {};
  onRefused = () => {};
  #counted = {};
  #seen = new Set();
  #path = undefined;
  #stop = new AbortController();
  #last = undefined;

  constructor() {
    let timer;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(timer);
      if (!document.hidden) this.#restart();
      else timer = setTimeout(() => this.#stop.abort(), HIDDEN_MS);
    });
  }

  /** Listens at `path` from now on, instead of where it did. */
  listen(path) {
    if (path === this.#path) return;
    this.#path = path;
    this.#stop.abort();
    this.#restart();
  }

  #restart() {
    if (this.#path === undefined || (this.#last !== undefined && !this.#last.signal.aborted)) return;
    this.#stop = new AbortController();
    this.#last = this.#stop;
    void this.#follow(this.#path, this.#stop.signal);
  }

  /** Forgets everything. */
  end() {
    this.#stop.abort();
    this.#path = undefined;
    Object.assign(this, { state: undefined, line: "connecting", happened: [], engine: [], history: new Map() });
    this.#counted = {};
    this.#seen.clear();
  }

  async #follow(path, signal) {
    const query = `${path.includes("?") ? "&" : "?"}events=${EVENTS_ASKED}`;
    while (!signal.aborted) {
      try {
        for await (const { event, id, data } of events(path + query, signal)) this.#take(event, id, data);
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Refusal && error.status < 500) return this.onRefused(error);
      }
      if (signal.aborted) return;
      if (this.line !== "lost") Object.assign(this, { line: "lost", lostSince: Date.now() });
      this.onChange();
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  #take(event, id, data) {
    if (event === "happened") {
      if (this.#seen.has(id)) return;
      this.#seen.add(id);
      this.happened = [{ ...data, id }, ...this.happened].slice(0, EVENTS_KEPT);
      if (this.state) this.onEvent(data);
      return;
    }
    const readBefore = this.state?.readAt;
    const engineBefore = this.state?.nic?.engine;
    const engine = engineBefore && { ...engineBefore };
    this.state = event === "state" ? data : applyPatch(this.state ?? {}, data);
    this.line = "live";
    if (this.state.readAt !== undefined && this.state.readAt !== readBefore) this.#sample(readBefore, engine);
    this.onChange();
  }

  #sample(readBefore, engineBefore) {
    const { readAt, nic } = this.state;
    const elapsed = readBefore === undefined ? Infinity : (readAt - readBefore) / 1000;
    const seconds = elapsed > 0 && elapsed < GAP_SECONDS ? elapsed : undefined;
    const counters = countersOf(this.state);
    for (const [port, now] of Object.entries(counters)) {
      const before = this.#counted[port];
      const delta = {};
      if (before) {
        for (const [name, count] of Object.entries(now)) {
          // A counter that went back has begun anew.
          if (count > (before[name] ?? 0)) delta[name] = count - (before[name] ?? 0);
        }
      }
      const samples = this.history.get(port) ?? [];
      const latency = seconds === undefined ? undefined : { ...recentLatency(this.state, port) };
      samples.push({ at: readAt, seconds: before ? seconds : undefined, delta, latency });
      while (samples[0].at < readAt - HISTORY_SECONDS * 1000) samples.shift();
      this.history.set(port, samples);
    }
    for (const port of this.history.keys()) if (!(port in counters)) this.history.delete(port);
    this.#counted = Object.fromEntries(Object.entries(counters).map(([port, now]) => [port, { ...now }]));
    this.#sampleEngine(engineBefore, nic?.engine, seconds);
  }

  #sampleEngine(before, now, seconds) {
    if (!now) return;
    const up = before ? now.uptimeNs - before.uptimeNs : 0;
    const busy = up > 0 && seconds !== undefined ? Math.max(0, (now.busyNsTotal - before.busyNsTotal) / up) : undefined;
    this.engine.push({ at: this.state.readAt, busy });
    while (this.engine[0].at < this.state.readAt - HISTORY_SECONDS * 1000) this.engine.shift();
  }

  /** The last sample of a port, if it is of the last reading; rates are its differences by its seconds. */
  rate(port, ...names) {
    const sample = this.history.get(port)?.at(-1);
    if (!sample?.seconds) return 0;
    return names.reduce((sum, name) => sum + (sample.delta[name] ?? 0), 0) / sample.seconds;
  }

  /** What a port dropped in the last second, by reason, a second. */
  drops(port) {
    const sample = this.history.get(port)?.at(-1);
    if (!sample?.seconds) return [];
    return Object.entries(sample.delta).filter(([name]) => isDrop(name)).map(([name, n]) => [name, n / sample.seconds]);
  }
}

/** Whether a counter counts frames that were dropped. */
export function isDrop(name) {
  return /^[rt]x_/.test(name) && !/_(frames|bytes|multicast|broadcast|interrupts|interrupts_saved|held)$/.test(name);
}
