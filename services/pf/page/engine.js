/** The NIC: how busy its engine is and with whom, its memory, uplink and settings, and the services around it. */
import { change } from "./api.js";
import { Form, useSchema } from "./form.js";
import { ago, bits, bytes, clock, count, percent, specOf, whole, words } from "./format.js";
import { RecentLatency } from "./latency.js";
import { isDrop } from "./live.js";
import { Plot, rateSeries } from "./plots.js";
import { Bar } from "./port.js";
import { portRows } from "./ports.js";
import { UplinkForm } from "./uplink_form.js";
import { html } from "./vendor/preact.js";

const BUSIEST = 10;
/** The whole arena (shared/layout): 4 GiB. */
const ARENA_BYTES = 4 * 1024 ** 3;

/** The view. */
export function EngineView({ live, who }) {
  const canEdit = who.role === "operator" || who.role === "service";
  return html`
    <h1 tabindex="-1">NIC</h1>
    <div class="cards">
      <${Engine} live=${live} />
      <${Shares} live=${live} />
      <${Services} live=${live} />
      <${Uplink} live=${live} canEdit=${canEdit} />
      <${Settings} live=${live} canEdit=${canEdit} />
    </div>
  `;
}

function Engine({ live }) {
  const { engine } = live.state.nic;
  const now = live.engine.at(-1)?.busy ?? 0;
  if (!engine) {
    return html`
      <section class="card">
        <h2>Engine</h2>
        <p class="none">The NIC has not answered yet.</p>
      </section>
    `;
  }
  const used = ARENA_BYTES - engine.arenaFreeBytes;
  return html`
    <section class="card" aria-label="Engine">
      <h2>Engine</h2>
      <${Plot} title="Busy share of the worker" at=${live.engine.map(({ at }) => at)} format=${percent} least=${0.1}
        series=${[{
          name: "worker 0",
          tone: "--rx",
          values: live.engine.map(({ busy }) => busy ?? null),
          now: percent(now),
        }]} />
      <dl class="bars">
        <div>
          <dt>Arena</dt>
          <dd><${Bar} share=${used / ARENA_BYTES} label="Arena in use" />
        ${bytes(used)} of ${bytes(ARENA_BYTES)}</dd>
        </div>
      </dl>
      <dl class="pairs">
        <div>
          <dt>Up for</dt>
          <dd>${ago(engine.uptimeNs / 1e6)}</dd>
        </div>
        <div>
          <dt>Frames</dt>
          <dd>${whole(engine.framesTotal)}</dd>
        </div>
        <div>
          <dt>Interrupts</dt>
          <dd>${whole(engine.callsTotal)}</dd>
        </div>
        <div>
          <dt>Sleeps</dt>
          <dd>${whole(engine.sleepsTotal)}</dd>
        </div>
        <div>
          <dt>Kicks without work</dt>
          <dd>${whole(engine.spuriousKicksTotal)}</dd>
        </div>
        <div>
          <dt>Filters</dt>
          <dd>${whole(engine.filters)}</dd>
        </div>
        <div class=${engine.faultsTotal > 0 ? "bad" : ""}>
          <dt>Memory faults</dt>
          <dd>${whole(engine.faultsTotal)}</dd>
        </div>
      </dl>
    </section>
  `;
}

function Shares({ live }) {
  const rows = portRows(live).filter(({ isVport }) => !isVport);
  const pools = [["uplink", "Uplink"], ["pf", "PF pool"]].map(([port, name]) => ({
    ...{ port, name, href: "#/nic", engine: live.rate(port, "engine_ns") / 1e9 },
    ...{ tx: live.rate(port, "tx_frames"), of: {} },
  }));
  const all = [...rows, ...pools].sort((a, b) => b.engine - a.engine);
  const shown = all.slice(0, BUSIEST);
  const rest = all.slice(BUSIEST).reduce((sum, { engine }) => sum + engine, 0);
  return html`
    <section class="card" aria-labelledby="shares-title">
      <h2 id="shares-title">Engine time by sender <small>busiest first</small></h2>
      <table class="shares">
        <thead>
          <tr>
            <th scope="col">Port</th>
            <th scope="col">Share</th>
            <th scope="col" class="number">Sends</th>
            <th scope="col" class="number">Memory</th>
          </tr>
        </thead>
        <tbody>${shown.map(({ port, name, href, engine, tx, of }) =>
          html`
            <tr key=${port}>
              <th scope="row"><a href=${href}>${name}</a></th>
              <td><${Bar} share=${engine} label=${`Engine time of ${name}`} />${percent(engine)}</td>
              <td class="number">${count(tx)}/s</td>
              <td class="number">${of.memory?.bytes ? bytes(of.memory.bytes) : "–"}</td>
            </tr>
          `
        )}</tbody>
      </table>
      ${all.length > BUSIEST &&
        html`<p class="help">The other ${all.length - BUSIEST}: ${
          percent(rest)
        }. <a href="#/">The table</a> has them all.</p>`}
    </section>
  `;
}

/** Whether another process takes over if a service's dies. */
const STANDBY = { none: "no standby", syncing: "a standby is being told", ready: "a standby is ready" };

function Services({ live }) {
  const { services, nic } = live.state;
  const standbys = { nic: nic.standby, vhost: nic.vhostStandby };
  const all = { pf: { state: live.line === "lost" ? "away" : "up", since: live.lostSince }, ...services };
  return html`
    <section class="card" aria-labelledby="services-title">
      <h2 id="services-title">Services</h2>
      <table>
        <thead>
          <tr>
            <th scope="col">Service</th>
            <th scope="col">State</th>
            <th scope="col">Since</th>
          </tr>
        </thead>
        <tbody>${Object.entries(all).map(([name, { state, since }]) =>
          html`
            <tr key=${name} class=${state === "away" ? "bad" : ""}>
              <th scope="row">${name}</th>
              <td><i class=${`lamp ${state === "up" ? "up" : "down"}`}></i>${state}${standbys[name]
                ? `, ${STANDBY[standbys[name].state]}`
                : ""}</td>
              <td>${since === undefined ? "–" : clock(since)}</td>
            </tr>
          `
        )}</tbody>
      </table>
    </section>
  `;
}

function Uplink({ live, canEdit }) {
  const { spec, state, reason, interface: name, attached, socket, latency } = live.state.nic.uplink;
  const samples = live.history.get("uplink") ?? [];
  const line = (label, tone, counter, factor, format) => {
    const values = rateSeries(samples, [counter], factor);
    return { name: label, tone, values, now: format(values.at(-1) ?? 0) };
  };
  const drops = live.drops("uplink").filter(([counter]) => isDrop(counter));
  return html`
    <section class="card" aria-labelledby="uplink-title">
      <h2 id="uplink-title">Uplink</h2>
      <p class="fact"><i class=${`lamp ${state === "up" || attached ? "up" : "down"}`}></i><b>${specOf(spec)}</b>
        ${state === "none"
          ? attached ? "a vhost-user front-end is attached" : "nothing is behind the uplink's port"
          : state ?? "not known"}
        ${name && name !== spec.name && name !== spec.interface ? ` (${name})` : ""}</p>
      ${reason && html`<p class="refused">${reason}</p>`}
      <${Plot} title="Frames a second" at=${samples.map(({ at }) => at)} format=${count}
        series=${[line("out", "--rx", "rx_frames", 1, count), line("in", "--tx", "tx_frames", 1, count)]} />
      <${Plot} title="Bits a second" at=${samples.map(({ at }) => at)} format=${bits}
        series=${[line("out", "--rx", "rx_bytes", 8, bits), line("in", "--tx", "tx_bytes", 8, bits)]} />
      ${latency && html`
        <${RecentLatency} live=${live} port="uplink" latency=${latency}
          title="Latency of what comes in: from the ring until it is delivered" />
      `}
      ${drops.map(([counter, rate]) => html`<p class="refused">${words(counter)}: ${count(rate)}/s</p>`)}
      ${canEdit && html`<${UplinkForm} path="/api/v1/nic/uplink" id="uplink-spec" spec=${spec} />`}
      <p class="help">A router or generator attaches to <code>${socket}</code>.</p>
    </section>
  `;
}

function Settings({ live, canEdit }) {
  const schema = useSchema("NicPatch");
  const send = (body) => change("PATCH", "/api/v1/nic", body);
  return html`
    <section class="card" aria-labelledby="settings-title">
      <h2 id="settings-title">Settings</h2>
      <p class="fact"><i class=${`lamp ${live.state.nic.carrier}`}></i>VFs with link state auto have a carrier: <b>${live
        .state.nic.carrier}</b></p>
      ${schema && html`<${Form} id="nic" schema=${schema} value=${live.state.nic} canEdit=${canEdit} send=${send} />`}
    </section>
  `;
}
