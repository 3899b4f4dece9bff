/** The picture with many ports: a panel of them, as on the front of a switch, each with two lines to the bus of its row. */
import { count, fitting, specOf } from "./format.js";
import { Flow } from "./lines.js";
import { spoken } from "./ports.js";
import { html } from "./vendor/preact.js";

const [CELL_W, CELL_H, GAP, STUB] = [46, 32, 6, 18];
const PITCH = CELL_H + STUB + 10;
const NARROW = 640;
const NIC_W = 44;

/** The panel. */
export function Panel({ live, rows, width }) {
  const narrow = width < NARROW;
  const up = narrow ? 0 : 190;
  const room = width - NIC_W - (narrow ? 10 : up + 70);
  const across = Math.max(1, Math.floor((room + GAP) / (CELL_W + GAP)));
  const lines = [];
  for (let i = 0; i < rows.length;) {
    const { isVport } = rows[i];
    const line = [];
    for (; i < rows.length && line.length < across && rows[i].isVport === isVport; i++) line.push(rows[i]);
    lines.push(line);
  }
  const nicX = across * (CELL_W + GAP) + (narrow ? 2 : 14);
  const end = lines.length * PITCH;
  const height = end + (narrow ? 60 : 4);
  return html`
    <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="group"
      aria-label=${`${rows.length} ports, the switch and the uplink`}>
      ${lines.map((line, i) => html`<${Line} key=${i} line=${line} y=${i * PITCH} end=${nicX} />`)}
      <${Nic} live=${live} x=${nicX} height=${end - 4} />
      <${Uplink} live=${live} from=${nicX + NIC_W} narrow=${narrow} end=${end} width=${width} />
    </svg>
  `;
}

function Line({ line, y, end }) {
  const bus = y + CELL_H + STUB;
  const sum = (way) => line.reduce((all, row) => all + row[way], 0);
  return html`
    <g>
      <${Flow} d=${`M0 ${bus}H${end}`} frames=${sum("tx") + sum("rx")} kind="bus" quiet />
      ${line.map((row, i) => html`<${Cell} key=${row.port} row=${row} x=${i * (CELL_W + GAP)} y=${y} bus=${bus} />`)}
    </g>
  `;
}

function Cell({ row, x, y, bus }) {
  const { href, id, isVport, guest, path, of, link, tx, rx, dropped } = row;
  const tone = `${path.kind} ${guest.bad || dropped > 0 ? "bad" : ""} ${guest.none ? "vacant" : ""}`;
  const said = spoken(row, count);
  return html`
    <g>
      <${Flow} d=${`M${x + CELL_W / 2 - 6} ${y + CELL_H}V${bus}`} frames=${tx} kind=${path.kind} quiet />
      <${Flow} d=${`M${x + CELL_W / 2 + 6} ${bus}V${y + CELL_H}`} frames=${rx} kind=${path.kind} quiet />
      <a href=${href} class=${`port cell ${tone}`}>
        <rect x=${x + 0.5} y=${y + 0.5} width=${CELL_W - 1} height=${CELL_H - 1} rx="3" />
        <rect class="strip" x=${x + 0.5} y=${y + 0.5} width="3" height=${CELL_H - 1} rx="1.5" />
        <text x=${x + 8} y=${y + 14} class="strong">${isVport ? `v${id}` : id}</text>
        <circle class=${`link ${link}`} cx=${x + CELL_W - 8} cy=${y + 9} r="2.5" />
        ${of.plugin && html`<path class="plug" d=${`M${x + CELL_W - 1} ${y + CELL_H - 11}v10h-10z`} />`}
        <text x=${x + 8} y=${y + 26} class="tiny">${of.vlan || of.nativeVlan || ""}</text>
        <title>${said}</title>
      </a>
    </g>
  `;
}

function Nic({ live, x, height }) {
  const { switchMode } = live.state.nic;
  const busy = live.engine.at(-1)?.busy ?? 0;
  const bar = Math.max(0, Math.min(1, busy)) * (height - 8);
  return html`
    <a href="#/nic" class="nic">
      <title>Switch: ${switchMode}, engine ${Math.round(busy * 100)} % busy</title>
      <rect x=${x + 0.5} y="0.5" width=${NIC_W - 1} height=${height - 1} rx="4" />
      <rect class="track" x=${x + NIC_W - 10} y="4" width="5" height=${height - 8} rx="2" />
      <rect class="busy" x=${x + NIC_W - 10} y=${height - 4 - bar} width="5" height=${bar} rx="2" />
      <text x=${x + 17} y=${height / 2} text-anchor="middle" class="strong">${switchMode.toUpperCase()}</text>
      <text x=${x + 17} y=${height / 2 + 15} text-anchor="middle" class="faint">${Math.round(busy * 100)}%</text>
    </a>
  `;
}

function Uplink({ live, from, narrow, end, width }) {
  const { spec, state, attached } = live.state.nic.uplink;
  const [tx, rx] = [live.rate("uplink", "tx_frames"), live.rate("uplink", "rx_frames")];
  const kind = state === "up" || attached ? "passthrough" : "none";
  const [w, h] = [narrow ? width : width - from - 70, 44];
  const [x, y] = [narrow ? 0 : width - w, narrow ? end + 12 : end / 2 - h / 2];
  const title = specOf(spec) === "none" ? attached ? "vhost-user" : "no uplink" : specOf(spec);
  const ways = narrow
    ? [`M${from - 30} ${end - 4}V${y}`, `M${from - 16} ${y}V${end - 4}`]
    : [`M${from} ${y + 15}H${x}`, `M${x} ${y + 29}H${from}`];
  return html`
    <g>
      <${Flow} d=${ways[0]} frames=${rx} kind=${kind} />
      <${Flow} d=${ways[1]} frames=${tx} kind=${kind} />
      <a href="#/nic" class=${`port ${kind} ${kind === "none" ? "vacant" : ""}`}>
        <title>Uplink: ${title}, ${count(rx)} frames a second out, ${count(tx)} in</title>
        <rect x=${x + 0.5} y=${y + 0.5} width=${w - 1} height=${h - 1} rx="4" />
        <text x=${x + 12} y=${y + 19} class="strong">${fitting(title, w - 20, true)}</text>
        <text x=${x + 12} y=${y + 35} class="faint">${count(rx)}/s out, ${count(tx)}/s in</text>
      </a>
    </g>
  `;
}
