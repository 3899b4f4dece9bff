/** One VF or vport: its traffic, mode, policy, queues, limits, events, counters, and how a guest attaches. */
import { keepAnswer, newest } from "./answered.js";
import { changePolicy } from "./api.js";
import { AttachCard } from "./attach.js";
import { EventList, portOf } from "./events.js";
import { Form, useSchema } from "./form.js";
import { bits, bytes, count, guestOf, pathOf, specOf, vlanOf, whole, words } from "./format.js";
import { LatencyCard } from "./latency.js";
import { isDrop } from "./live.js";
import { ModeCard } from "./mode.js";
import { Plot, rateSeries } from "./plots.js";
import { BindCard } from "./uplink_form.js";
import { html, useEffect, useState } from "./vendor/preact.js";

const TONES = ["--bad", "--emulated", "--tx", "--rx", "--muted"];

/** The view. */
export function PortView({ live, who, kind, id }) {
  const port = `${kind}${id}`;
  const of = live.state[`${kind}s`]?.[id];
  const name = kind === "vf" ? `VF ${id}` : `vport ${id}`;
  if (!of) {
    return html`
      <h1 tabindex="-1">${name}</h1>
      <p>There is no ${name}. <a href="#/">All that there are</a></p>
    `;
  }
  const path = `/api/v1/${kind}s/${id}`;
  const mine = live.happened.filter((event) => portOf(event) === port);
  const version = `${
    mine.find(({ type }) => type.startsWith("mode-"))?.id
  } ${of.mode} ${of.plugin} ${of.dataPath} ${of.attached} ${live.state.services.vf?.state}`;
  const isOperator = who.role === "operator" || who.role === "service";
  return html`
    <${Title} live=${live} name=${name} kind=${kind} id=${id} of=${of} alone=${who.role === "vf"} />
    <div class="cards">
      <${Traffic} live=${live} port=${port} />
      <${LatencyCard} live=${live} port=${port} latency=${of.latency} />
      ${kind === "vf" && html`<${Queues} of=${of} />`}
      <${ModeCard} path=${path} version=${version} isAttached=${of.attached !== false} canChange=${isOperator} />
      <${PolicyCard} live=${live} path=${path} kind=${kind} of=${of} canEdit=${who.role !== "read"}
        fixed=${who.fixedFields} />
      <section class="card">
        <h2>Latest events</h2>
        <${EventList} events=${mine.slice(0, 12)} />
      </section>
      <${Counters} live=${live} port=${port} counters=${of.counters} />
      <${AttachCard} path=${path} port=${port} socket=${of.socket} canCapture=${who.role !== "read"} />
      ${kind === "vf" && html`<${BindCard} path=${path} uplink=${of.uplink} canEdit=${isOperator} />`}
    </div>
  `;
}

function Title({ live, name, kind, id, of, alone }) {
  const ids = Object.keys(live.state[`${kind}s`]).map(Number).sort((a, b) => a - b);
  const at = ids.indexOf(id);
  const path = pathOf(of, kind === "vport");
  const guest = guestOf(of);
  const step = (to, text, label) =>
    to === undefined
      ? html`<span class="step" aria-hidden="true">${text}</span>`
      : html`<a class="step" href=${`#/${kind}/${to}`} aria-label=${label}>${text}</a>`;
  return html`
    <div class="title">
      <h1 tabindex="-1">${name}</h1>
      ${!alone && html`<nav class="steps" aria-label="Other ports">
        ${step(ids[at - 1], "←", "The one before")}${step(ids[at + 1], "→", "The next one")}</nav>`}
      <ul class="chips">
        <li><i class=${`key ${path.kind}`}></i>${path.kind === "none" ? "no driver" : path.kind}${path.via &&
          `, ${path.via}`}</li>
        <li class=${guest.bad ? "bad" : ""}>${guest.text}</li>
        <li><i class=${`lamp ${of.link}`}></i>link ${of.link}</li>
        <li>${vlanOf(of)}</li>
        <li class="mono">${of.mac}</li>
        ${of.uplink && html`<li>${specOf(of.uplink.spec)} ${of.uplink.state}</li>`}
        ${kind === "vf" && of.vport !== undefined &&
          html`<li><a href=${`#/vport/${of.vport}`}>vport ${of.vport}</a></li>`}
        ${kind === "vport" && of.vf !== undefined && html`<li><a href=${`#/vf/${of.vf}`}>VF ${of.vf}</a></li>`}
      </ul>
    </div>
  `;
}

function Traffic({ live, port }) {
  const samples = live.history.get(port) ?? [];
  const at = samples.map((sample) => sample.at);
  const line = (name, tone, counters, factor, format, dash = false) => {
    const values = rateSeries(samples, counters, factor);
    return { name, tone, dash, values, now: format(values.at(-1) ?? 0) };
  };
  const sums = {};
  for (const { delta } of samples) {
    for (const [counter, n] of Object.entries(delta)) if (isDrop(counter)) sums[counter] = (sums[counter] ?? 0) + n;
  }
  const reasons = Object.entries(sums).sort(([, a], [, b]) => b - a).slice(0, TONES.length).map(([counter]) => counter);
  return html`
    <section class="card" aria-label="Traffic">
      <h2>Traffic <small>of the last five minutes; tx is what the guest sends</small></h2>
      <${Plot} title="Frames a second" at=${at} format=${count} series=${[
        line("tx", "--tx", ["tx_frames"], 1, count),
        line("rx", "--rx", ["rx_frames"], 1, count),
      ]} />
      <${Plot} title="Bits a second" at=${at} format=${bits} series=${[
        line("tx", "--tx", ["tx_bytes"], 8, bits),
        line("rx", "--rx", ["rx_bytes"], 8, bits),
      ]} />
      ${reasons.length === 0 ? html`<p class="none">No drops in the last five minutes.</p>` : html`
        <${Plot} title="Drops a second, by reason" at=${at} format=${count}
          series=${reasons.map((counter, i) => line(words(counter), TONES[i], [counter], 1, count, i >= 3))} />
      `}
    </section>
  `;
}

function PolicyCard({ live, path, kind, of, canEdit, fixed }) {
  const schema = useSchema(kind === "vf" ? "VfPatch" : "VportPatch");
  const [kept, setKept] = useState(undefined);
  const { at } = live.state;
  const { value, tag } = newest(kept, { value: of, tag: of.tag }, at);
  useEffect(() => setKept((kept) => kept?.tag === of.tag ? undefined : kept), [of.tag]);
  // The policy that is shown is the one that a change is of: if somebody else has changed it, the API refuses.
  const send = async (body) => {
    const answer = await changePolicy(path, body, tag);
    setKept((kept) => keepAnswer(kept, answer, tag, at));
  };
  return html`
    <section class="card policy" aria-labelledby="policy-title">
      <h2 id="policy-title">Policy</h2>
      ${schema
        ? html`
          <${Form} id="policy" schema=${schema} value=${value} canEdit=${canEdit} fixed=${fixed}
            send=${send} />
        `
        : html`<p class="none">…</p>`}
    </section>
  `;
}

function Queues({ of: { queues, limits, memory, lastDetach } }) {
  return html`
    <section class="card" aria-labelledby="queues-title">
      <h2 id="queues-title">Queues and limits</h2>
      ${!queues?.length
        ? html`<p class="none">No queue runs.${lastDetach && ` The last guest's connection ended: ${lastDetach}.`}</p>`
        : html`
          <div class="scroll" tabindex="0" role="group" aria-label="Queues">
            <table>
              <thead>
                <tr>${["Queue", "Ring", "Size", "State", "Frames", "Interrupts", "Saved"].map((head, i) =>
                  html`
                    <th scope="col" class=${[2, 4, 5, 6].includes(i) ? "number" : ""}>${head}</th>
                  `
                )}</tr>
              </thead>
              <tbody>${queues.map((queue) =>
                html`
                  <tr key=${queue.index} class=${queue.state === "error" ? "bad" : ""}>
                    <th scope="row">${queue.kind} ${queue.index}</th>
                    <td>${queue.flavour}</td>
                    <td class="number">${queue.size}</td>
                    <td>${queue.state}${queue.reason && `: ${queue.reason}${queue.detail ? `, ${queue.detail}` : ""}`}
                      ${queue.quarantineMs > 0 && `, kicks not heard for ${queue.quarantineMs} ms`}</td>
                    <td class="number">${whole(queue.frames)}</td>
                    <td class="number">${whole(queue.calls)}</td>
                    <td class="number">${whole(queue.callsSaved)}</td>
                  </tr>
                `
              )}</tbody>
            </table>
          </div>
        `}
      ${limits && html`
        <dl class="bars">
          ${[["Memory", limits.memory, bytes], ["Frames that wait", limits.buffered, bytes], [
            "Receive ring entries",
            limits.receives,
            count,
          ], ["Transmit ring entries", limits.submissions, count]]
            .map(([name, { used, limit }, format]) =>
              html`
                <div>
                  <dt>${name}</dt>
                  <dd><${Bar} share=${limit > 0 ? used / limit : 0} label=${name} />
                  ${format(used)} of ${format(limit)}</dd>
                </div>
              `
            )}
        </dl>
        ${Object.entries(limits.refused).map(([limit, times]) =>
          html`<p class="refused">Refused ${times} times: ${limit}</p>`
        )}
      `}
      ${memory?.bytes > 0 &&
        html`<p class="help">${memory.regions} memory region${memory.regions > 1 ? "s" : ""}, ${
          memory.sealed ? "which cannot shrink" : "which can shrink: its files are not sealed"
        }.</p>`}
    </section>
  `;
}

/** How much of something is used. */
export function Bar({ share, label }) {
  const width = Math.max(0, Math.min(100, share * 100));
  return html`
    <span class="bar" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
      aria-valuenow=${Math.round(width)}><i style=${{ width: `${width}%` }}></i></span>
  `;
}

function Counters({ live, port, counters }) {
  const names = Object.keys(counters).sort((a, b) => isDrop(a) - isDrop(b) || a.localeCompare(b));
  return html`
    <section class="card" aria-labelledby="counters-title">
      <h2 id="counters-title">Counters</h2>
      ${names.length === 0 ? html`<p class="none">All are 0.</p>` : html`
        <div class="scroll" tabindex="0" role="group" aria-label="Counters">
          <table>
            <thead>
              <tr>
                <th scope="col">Counter</th>
                <th scope="col" class="number">Total</th>
                <th scope="col" class="number">A second</th>
              </tr>
            </thead>
            <tbody>${names.map((name) =>
              html`
                <tr key=${name} class=${isDrop(name) ? "bad" : ""}>
                  <th scope="row" class="mono">${name}</th>
                  <td class="number" data-counter=${name}>${whole(counters[name])}</td>
                  <td class="number">${count(live.rate(port, name))}</td>
                </tr>
              `
            )}</tbody>
          </table>
        </div>
      `}
    </section>
  `;
}
