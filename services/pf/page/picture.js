/**
 * The picture: guests, VFs and vports, the switch, the uplink. A row for each port while there are few; beyond that a
 * panel of ports, as on the front of a switch, so that it stays readable with 250.
 */
import { count } from "./format.js";
import { Panel } from "./picture_panel.js";
import { Rows } from "./picture_rows.js";
import { portRows } from "./ports.js";
import { html, useEffect, useRef, useState } from "./vendor/preact.js";

const ROWS_MAX = 12;

/** The picture, as wide as there is room. */
export function Picture({ live }) {
  const place = useRef(null);
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const look = () => setWidth(Math.floor(place.current.clientWidth));
    look();
    const size = new ResizeObserver(look);
    size.observe(place.current);
    return () => size.disconnect();
  }, []);
  const rows = portRows(live);
  const Shape = rows.length <= ROWS_MAX ? Rows : Panel;
  return html`
    <section class="card picture" aria-label="Picture of the fabric">
      <div ref=${place}>${width > 0 && html`<${Shape} live=${live} rows=${rows} width=${width} />`}</div>
      <${Legend} rows=${rows} isPanel=${Shape === Panel} />
    </section>
  `;
}

function Legend({ rows, isPanel }) {
  const busiest = rows.reduce((most, { tx, rx }) => Math.max(most, tx, rx), 0);
  return html`
    <ul class="legend" aria-label="What the picture means">
      <li><i class="key passthrough"></i>passthrough</li>
      <li><i class="key emulated"></i>emulated</li>
      ${isPanel && html`<li><i class="key plugin"></i>plugin in the guest</li>`}
      <li><i class="key none"></i>no guest</li>
      <li><i class="key down"></i>link down</li>
      <li><i class="key bad"></i>${isPanel ? "queue in error, or drops" : "queue in error"}</li>
      <li class="note">width and motion: frames a second; the busiest way has ${count(busiest)}</li>
    </ul>
  `;
}
