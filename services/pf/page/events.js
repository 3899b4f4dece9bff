/** The event log: what has happened, latest first, with filters. */
import { clock, portName, specOf, vlans, words } from "./format.js";
import { html, useState } from "./vendor/preact.js";

const SHOWN_MAX = 300;
const BAD = new Set([
  "nic-down",
  "mode-failed",
  "queue-error",
  "uplink-failed",
  "uplink-down",
  "spoofed",
  "wish-refused",
  "missed",
]);

/** Whose event it is, as a port: vf3, vport0, uplink, pf; undefined: everybody's. */
export function portOf({ vf, vport }) {
  if (vport !== undefined) return `vport${vport}`;
  if (typeof vf === "number") return `vf${vf}`;
  return vf;
}

/** A value of a policy, as people write it. */
function written(value) {
  if (value === null || value?.length === 0) return "none";
  if (typeof value === "boolean") return value ? "on" : "off";
  if (Array.isArray(value)) return typeof value[0] === "number" ? vlans(value) : value.join(" ");
  return value.kind === undefined ? String(value) : specOf(value);
}

function changesOf(changes) {
  return Object.entries(changes ?? {}).map(([name, value]) => `${name} ${written(value)}`).join(", ");
}

/** An event as a sentence's rest: whose it is stands before it. */
function what(event) {
  const { type, mode, plugin, dataPath, reason, detail, index, frames, changes } = event;
  const why = detail ?? reason;
  switch (type) {
    case "vf-changed":
    case "vport-changed":
    case "nic-changed":
      return `policy changed: ${changesOf(changes)}`;
    case "mode-changed":
      return `${mode}${plugin ? `, plugin ${plugin}` : dataPath ? `, ${dataPath}` : ""}${why ? `: ${why}` : ""}`;
    case "mode-failed":
      return `change of mode failed, ${mode ?? "an unknown mode"} is in force${why ? `: ${why}` : ""}`;
    case "wish-refused":
      return `the guest's wish was refused: ${detail}`;
    case "nic-up":
      return "answers";
    case "nic-down":
      return "does not answer";
    case "attached":
      return "driver attached";
    case "detached":
      return `driver detached${why ? `: ${why}` : ""}`;
    case "queue-error":
      return `queue ${index} stopped: ${why}`;
    case "spoofed":
      return `${frames} frames with another source address dropped`;
    case "missed":
      return "events were missed";
    default:
      return `${words(type.replaceAll("-", " "))}${why ? `: ${why}` : ""}${event.spec ? ` ${specOf(event.spec)}` : ""}`;
  }
}

/** An event as a sentence. */
export function sentence(event) {
  const port = portOf(event);
  return `${port === undefined ? event.type.startsWith("nic") ? "NIC" : "" : portName(port)} ${what(event)}`.trim();
}

/** Events as a list. */
export function EventList({ events, none = "Nothing has happened yet." }) {
  if (events.length === 0) return html`<p class="none">${none}</p>`;
  return html`
    <ol class="events">
      ${events.slice(0, SHOWN_MAX).map((event) => {
        const port = portOf(event);
        const href = /^vf\d/.test(port) ? `#/vf/${event.vf}` : /^vport/.test(port) ? `#/vport/${event.vport}` : "#/nic";
        return html`
          <li key=${event.id} class=${BAD.has(event.type) ? "bad" : ""}>
            <time datetime=${event.at}>${clock(event.at)}</time>
            <a href=${href}>${port === undefined ? "NIC" : portName(port)}</a>
            <span><b>${event.type}</b> ${what(event)}</span>
          </li>
        `;
      })}
    </ol>
  `;
}

/** The log, with filters. */
export function EventsView({ live }) {
  const [type, setType] = useState("");
  const [port, setPort] = useState("");
  const [text, setText] = useState("");
  const types = [...new Set(live.happened.map((event) => event.type))].sort();
  const ports = [...new Set(live.happened.map(portOf))].filter((name) => name !== undefined)
    .sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const events = live.happened.filter((event) =>
    (type === "" || event.type === type) && (port === "" || portOf(event) === port) &&
    (text === "" || sentence(event).toLowerCase().includes(text.toLowerCase()))
  );
  const choose = (id, label, value, set, options) =>
    html`
      <label for=${id}>${label}
        <select id=${id} value=${value} onChange=${(event) => set(event.target.value)}>
          <option value="">all</option>
          ${options.map((option) => html`<option value=${option} selected=${option === value}>${option}</option>`)}
        </select>
      </label>
    `;
  return html`
    <h1 tabindex="-1">Events</h1>
    <section class="card">
      <div class="filters" role="search">
        ${choose("event-type", "Type", type, setType, types)}
        ${choose("event-port", "Port", port, setPort, ports)}
        <label for="event-text">Text
          <input id="event-text" type="search" value=${text} onInput=${(event) => setText(event.target.value)} />
        </label>
        <p class="count">${events.length} of ${live.happened.length}</p>
      </div>
      <${EventList} events=${events} none="No event is like that." />
    </section>
  `;
}
