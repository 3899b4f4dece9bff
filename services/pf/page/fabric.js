/** The fabric as a picture, and the same as a table. */
import { EventList } from "./events.js";
import { bits, count } from "./format.js";
import { Picture } from "./picture.js";
import { Plot, rateSeries } from "./plots.js";
import { PortTable } from "./table.js";
import { html, useState } from "./vendor/preact.js";

const SHAPE_KEY = "ringfabric.shape";

/** What all VFs received together, over time. */
function summed(live, names, factor) {
  const all = Object.values(live.state.vfs).map(({ id }) => live.history.get(`vf${id}`) ?? []);
  const longest = all.reduce((best, samples) => samples.length > best.length ? samples : best, []);
  const series = all.map((samples) => rateSeries(samples, names, factor));
  const values = longest.map((_, i) => {
    const back = longest.length - i;
    return series.reduce((sum, one) => one.at(-back) == null ? sum : (sum ?? 0) + one.at(-back), null);
  });
  return { at: longest.map(({ at }) => at), values };
}

/** The view. */
export function FabricView({ live, who }) {
  const [shape, setShape] = useState(localStorage.getItem(SHAPE_KEY) === "table" ? "table" : "picture");
  const choose = (name) => {
    localStorage.setItem(SHAPE_KEY, name);
    setShape(name);
  };
  const frames = summed(live, ["rx_frames"], 1);
  const rate = summed(live, ["rx_bytes"], 8);
  return html`
    <div class="title">
      <h1 tabindex="-1">Fabric</h1>
      <div class="segments" role="group" aria-label="Shown as">
        ${["picture", "table"].map((name) =>
          html`
            <button type="button" aria-pressed=${shape === name} onClick=${() => choose(name)}>
              ${name === "picture" ? "Picture" : "Table"}</button>
          `
        )}
      </div>
    </div>
    ${shape === "picture" ? html`<${Picture} live=${live} />` : html`<${PortTable} live=${live} who=${who} />`}
    <div class="cards">
      <section class="card" aria-label="Delivered by all VFs">
        <h2>Delivered to all VFs</h2>
        <${Plot} title="Frames a second" at=${frames.at} format=${count}
          series=${[{ name: "all VFs", tone: "--rx", values: frames.values, now: count(frames.values.at(-1) ?? 0) }]} />
        <${Plot} title="Bits a second" at=${rate.at} format=${bits}
          series=${[{ name: "all VFs", tone: "--rx", values: rate.values, now: bits(rate.values.at(-1) ?? 0) }]} />
      </section>
      <section class="card" aria-label="Latest events">
        <h2>Latest events <a href="#/events">all</a></h2>
        <${EventList} events=${live.happened.slice(0, 9)} />
      </section>
    </div>
  `;
}
