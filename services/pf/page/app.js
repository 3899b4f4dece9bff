/** The page's frame: who is asking, where one is, what is away, and the view in between. */
import { get, keepToken, Refusal } from "./api.js";
import { EngineView } from "./engine.js";
import { EventsView, sentence } from "./events.js";
import { FabricView } from "./fabric.js";
import { ago, bits, clock, count, percent } from "./format.js";
import { Live } from "./live.js";
import { LogIn } from "./login.js";
import { PortView } from "./port.js";
import { chooseTheme, theme } from "./theme.js";
import { Component, html } from "./vendor/preact.js";

const VIEWS = [["#/", "Fabric"], ["#/nic", "NIC"], ["#/events", "Events"]];
const THEME_WORDS = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
const THEME_NEXT = { auto: "light", light: "dark", dark: "auto" };
/** A reading that is older than this is said to be. */
const OLD_MS = 3500;
/** Whether the figures that are shown are of some time ago. */
const isOld = ({ line, state }) => line === "lost" || state.at - (state.readAt ?? 0) > OLD_MS;
/** Of these events a screen reader is told. */
const TOLD = new Set(["nic-up", "nic-down", "mode-changed", "mode-failed", "queue-error", "uplink-failed"]);

/** Where the address leads: a view's name, and the port that it shows. */
function placeOf(hash) {
  const [, kind, id] = /^#\/(vf|vport)\/(\d+)$/.exec(hash) ?? [];
  if (kind) return { view: "port", port: `${kind}${id}`, kind, id: Number(id) };
  return { view: /^#\/(nic|events)$/.exec(hash)?.[1] ?? "fabric" };
}

/** The whole page. */
export class App extends Component {
  constructor() {
    super();
    this.live = new Live();
    this.live.onChange = () => this.setState({});
    this.live.onEvent = (event) => TOLD.has(event.type) && this.setState({ told: sentence(event) });
    // A VF that is not there (any more) is no reason to see nothing of the others.
    this.live.onRefused = (refusal) =>
      refusal.status === 404 && this.state.who?.role !== "vf"
        ? this.live.listen("/api/v1/live")
        : this.logOut(refusal.message);
    this.state = { who: undefined, refused: undefined, place: placeOf(location.hash), told: "" };
    addEventListener("hashchange", () => this.go());
    addEventListener("theme", () => this.setState({}));
    // Ages are counted on while nothing comes.
    setInterval(() => this.live.line === "lost" && this.setState({}), 1000);
    void this.logIn();
  }

  go() {
    const place = placeOf(location.hash);
    this.setState({ place, told: "" }, () => {
      this.listen();
      scrollTo(0, 0);
      document.querySelector("h1")?.focus({ preventScroll: true });
    });
  }

  async logIn(token) {
    if (token !== undefined) keepToken(token);
    try {
      const who = await get("/api/v1/token");
      this.setState({ who, refused: undefined }, () => this.listen());
    } catch (error) {
      const refused = token === undefined ? undefined : error.message;
      if (error instanceof Refusal) this.logOut(refused);
      else {
        this.setState({ refused: error.message });
        setTimeout(() => this.state.who === undefined && this.logIn(token), 1000);
      }
    }
  }

  logOut(refused) {
    keepToken(undefined);
    this.live.end();
    this.setState({ who: null, refused });
  }

  listen() {
    const { who, place } = this.state;
    if (!who) return;
    const all = "/api/v1/live";
    if (who.role === "vf") this.live.listen(`/api/v1/vfs/${who.vf}/live`);
    else this.live.listen(place.kind === "vf" ? `${all}?vf=${place.id}` : all);
  }

  render(_, { who, refused, place, told }) {
    if (who === null) return html`<${LogIn} refused=${refused} onToken=${(token) => this.logIn(token)} />`;
    if (!who || !this.live.state) {
      const text = refused ?? (this.live.line === "lost" ? "the PF does not answer" : "");
      return html`
        <main class="waiting">
          <h1>ringfabric</h1>
          <p role="status">${text || "Connecting…"}${text && ". Trying again."}</p>
        </main>
      `;
    }
    return html`
      <a class="skip" href="#main" onClick=${(event) => {
        event.preventDefault();
        document.getElementById("main").focus();
      }}>Skip to the content</a>
      <${Head} live=${this.live} who=${who} place=${place} onLogOut=${() => this.logOut()} />
      <${Away} live=${this.live} />
      <main id="main" tabindex="-1" class=${isOld(this.live) ? "stale" : ""}>${this.view(who, place)}</main>
      <p class="told" role="status" aria-live="polite">${told}</p>
    `;
  }

  view(who, place) {
    const { live } = this;
    if (who.role === "vf") {
      return html`<${PortView} live=${live} who=${who} kind="vf" id=${who.vf} key=${`vf${who.vf}`} />`;
    }
    if (place.view === "port") {
      return html`<${PortView} live=${live} who=${who} kind=${place.kind} id=${place.id} key=${place.port} />`;
    }
    if (place.view === "nic") return html`<${EngineView} live=${live} who=${who} />`;
    if (place.view === "events") return html`<${EventsView} live=${live} />`;
    return html`<${FabricView} live=${live} who=${who} />`;
  }
}

/** Sums over all ports. */
function totals(live) {
  const ports = Object.values(live.state.vfs).map(({ id }) => `vf${id}`);
  const sum = (...names) => ports.reduce((all, port) => all + live.rate(port, ...names), 0);
  const dropped = [...ports, "uplink"].reduce(
    (all, port) => all + live.drops(port).reduce((n, [, rate]) => n + rate, 0),
    0,
  );
  return { frames: sum("rx_frames"), bits: 8 * sum("rx_bytes"), dropped };
}

function Head({ live, who, place, onLogOut }) {
  const { frames, bits: bitRate, dropped } = totals(live);
  const busy = live.engine.at(-1)?.busy;
  const here = place.view === "port" ? "#/" : place.view === "fabric" ? "#/" : `#/${place.view}`;
  const chosen = theme();
  return html`
    <header class="head">
      <a class="brand" href="#/">ringfabric</a>
      ${who.role !== "vf" && html`
        <nav aria-label="Views">
          ${VIEWS.map(([href, name]) =>
            html`
              <a href=${href} aria-current=${here === href ? "page" : undefined}>${name}</a>
            `
          )}
          <a href="/docs">API</a>
        </nav>
      `}
      <dl class="figures">
        <div><dt>Delivered</dt><dd>${count(frames)}<small>/s</small></dd></div>
        <div><dt>Throughput</dt><dd>${bits(bitRate)}</dd></div>
        <div class=${dropped > 0 ? "bad" : ""}><dt>Dropped</dt><dd>${count(dropped)}<small>/s</small></dd></div>
        ${busy !== undefined && html`
          <div>
            <dt>Engine</dt>
            <dd>${percent(busy)}</dd>
          </div>
        `}
      </dl>
      <div class="tools">
        <button type="button" class="quiet" onClick=${() => chooseTheme(THEME_NEXT[chosen])}
          title=${THEME_WORDS[chosen]} aria-label=${`${THEME_WORDS[chosen]}. Change it`}>
          <svg viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="5.5" />
            <path d=${chosen === "light"
              ? ""
              : chosen === "dark"
              ? "M8 2.5a5.5 5.5 0 1 1 0 11 5.5 5.5 0 1 1 0-11"
              : "M8 2.5a5.5 5.5 0 0 1 0 11z"} class="fill" />
          </svg>
        </button>
        ${who.name !== undefined && html`
          <button type="button" class="quiet" onClick=${onLogOut} title=${`${who.name}, ${who.role}`}>Log out</button>
        `}
      </div>
    </header>
  `;
}

const SERVICES = {
  nic: ["The NIC", "Its figures and who drives which VF"],
  vhost: ["The vhost service", "Guests on vports, and rings in emulated mode,"],
  vf: ["The vf service", "Plugins and changes of mode"],
};

/** What does not answer: each as a sentence, and how old what it told is. */
function troubles({ state, line, lostSince }) {
  if (line === "lost") {
    const old = `What is shown is ${ago(Date.now() - state.at)} old. Trying again.`;
    return [[`The PF does not answer since ${clock(lostSince)}.`, old]];
  }
  const nicAge = state.readAt === undefined ? undefined : state.at - state.readAt;
  const found = Object.entries(state.services).filter(([, { state: is }]) => is !== "up").map(([name, { since }]) => {
    const [service, part] = SERVICES[name] ?? [name, "What it does"];
    const old = name === "nic" && nicAge !== undefined ? ` are ${ago(nicAge)} old` : " cannot be told";
    return [`${service} does not answer since ${clock(since)}.`, `${part}${old}.`];
  });
  const isSlow = found.length === 0 && nicAge > OLD_MS;
  return isSlow ? [["The NIC is slow to answer.", `Its figures are ${ago(nicAge)} old.`]] : found;
}

/** Says it. Ages are told to nobody unasked: they change each second. */
function Away({ live }) {
  const found = troubles(live);
  return html`
    <section class="away" aria-label="What does not answer">
      <div role="alert">${found.map(([text]) => html`<p key=${text}>${text}</p>`)}</div>
      <div>${found.map(([text, age]) => html`<p key=${text}>${age}</p>`)}</div>
    </section>
  `;
}
