/** How long what a port's guest sends waits in its ring: of late over time, and all samples as a histogram. */
import { micros, waited, whole } from "./format.js";
import { Plot } from "./plots.js";
import { html } from "./vendor/preact.js";

/** The card. `latency`: as the live stream has it; undefined: the guest has sent nothing yet. */
export function LatencyCard({ live, port, latency }) {
  return html`
    <section class="card latency" aria-labelledby="latency-title">
      <h2 id="latency-title">Latency <small>of what the guest sends: from its ring until it is delivered, sampled</small></h2>
      ${!latency ? html`<p class="none">No frames yet.</p>` : html`
        <${RecentLatency} live=${live} port=${port} latency=${latency} title="Of the ten seconds before" />
        <h3>All samples</h3>
        <dl class="pairs">
          <div><dt>p50</dt><dd data-latency="p50">${waited(latency.p50Us)}</dd></div>
          <div><dt>p99</dt><dd data-latency="p99">${waited(latency.p99Us)}</dd></div>
          ${latency.sumNs !== undefined && html`
            <div>
              <dt>Mean</dt>
              <dd>${micros(latency.sumNs / 1000 / latency.samples)}</dd>
            </div>
          `}
          <div><dt>Samples</dt><dd data-latency="samples">${whole(latency.samples)}</dd></div>
        </dl>
        ${latency.counts && html`<${Histogram} counts=${latency.counts} />`}
      `}
    </section>
  `;
}

/** p50 and p99 of the ten seconds before each moment, over time. */
export function RecentLatency({ live, port, latency, title }) {
  const samples = live.history.get(port) ?? [];
  const line = (name, tone, field) => ({
    ...{ name, tone, values: samples.map((sample) => sample.latency?.[field] ?? null) },
    now: waited(latency.recent?.[field]),
  });
  return html`
    <${Plot} title=${title} isLog at=${samples.map(({ at }) => at)} format=${micros}
      series=${[line("p50", "--rx", "p50Us"), line("p99", "--emulated", "p99Us")]} />
  `;
}

/** A row for each bucket, from the first to the last that has samples. */
function Histogram({ counts }) {
  const first = counts.findIndex((count) => count > 0);
  const last = counts.findLastIndex((count) => count > 0);
  const most = Math.max(...counts);
  const rows = counts.map((count, i) => {
    const text = i === counts.length - 1 ? `over ${micros(2 ** (i - 1))}` : `up to ${micros(2 ** i)}`;
    return { count, text };
  });
  return html`
    <table class="histogram">
      <thead>
        <tr>
          <th scope="col">Took</th>
          <th scope="col"><span class="told">Share</span></th>
          <th scope="col" class="number">Samples</th>
        </tr>
      </thead>
      <tbody>${rows.slice(first, last + 1).map(({ count, text }) =>
        html`
          <tr key=${text}>
            <th scope="row">${text}</th>
            <td><span class="bar" aria-hidden="true"><i style=${{ width: `${count / most * 100}%` }}></i></span></td>
            <td class="number" data-bucket=${text}>${whole(count)}</td>
          </tr>
        `
      )}</tbody>
    </table>
  `;
}
