/** The picture with a row for each port: guest, what stands between, VF, two lines to the switch, the uplink. */
import { count, fitting, specOf } from "./format.js";
import { Flow } from "./lines.js";
import { spoken } from "./ports.js";
import { html } from "./vendor/preact.js";

const ROW = 58;
const BOX = 44;
const TOP = 26;
const NARROW = 720;

/** Where the columns are. */
function columns(width) {
  if (width < NARROW) {
    const port = Math.min(300, width - 122);
    return { narrow: true, port: [0, port], wire: [port, width - 48], nic: [width - 48, 48], up: undefined };
  }
  const [guest, port, nic, up] = [
    Math.min(210, width * 0.18),
    Math.min(220, width * 0.21),
    64,
    Math.min(190, width * 0.17),
  ];
  const left = width - guest - port - nic - up;
  const [via, wire] = [Math.min(150, left * 0.34), left * 0.43];
  const at = { port: guest + via, nic: guest + via + port + wire };
  return {
    narrow: false,
    guest: [0, guest],
    via: [guest, at.port],
    port: [at.port, port],
    wire: [at.port + port, at.nic],
    nic: [at.nic, nic],
    up: [width - up, up],
  };
}

/** The picture. */
export function Rows({ live, rows, width }) {
  const c = columns(width);
  const vports = rows.filter(({ isVport }) => isVport);
  const end = TOP + Math.max(rows.length, 1) * ROW;
  const height = c.narrow ? end + 74 : Math.max(end, TOP + 2 * ROW);
  return html`
    <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} role="group"
      aria-label=${`${rows.length} ports, the switch and the uplink`}>
      <g class="heads" aria-hidden="true">
        ${!c.narrow && html`<text x="0" y="12">Guests</text>`}
        <text x=${c.port[0]} y="12">${vports.length > 0 ? "VFs and vports" : "Virtual functions"}</text>
        <text x=${c.nic[0] + c.nic[1] / 2} y="12" text-anchor="middle">${c.narrow ? "NIC" : "Switch"}</text>
        ${!c.narrow && html`<text x=${c.up[0]} y="12">Uplink</text>`}
      </g>
      ${vports.length > 0 && html`<${SoftwareSwitch} live=${live} c=${c} rows=${rows} vports=${vports} />`}
      ${rows.map((row, i) => html`<${Row} key=${row.port} row=${row} c=${c} y=${TOP + i * ROW} />`)}
      <${Nic} live=${live} c=${c} height=${end - TOP - ROW + BOX} />
      <${Uplink} live=${live} c=${c} middle=${TOP + (end - TOP - ROW + BOX) / 2} bottom=${end} width=${width} />
    </svg>
  `;
}

/** Where a vport's line ends: at the software switch, which is before the NIC. */
const softX = ({ wire: [from, to], narrow }) => narrow ? to - 26 : from + (to - from) * 0.62;

function Row({ row, c, y }) {
  const { href, name, guest, path, vlan, link, of, tx, rx, dropped, reason, isVport } = row;
  const middle = y + BOX / 2;
  const [x, w] = c.port;
  const end = isVport ? softX(c) : c.wire[1];
  const from = c.wire[0];
  const tone = path.kind;
  const room = end - from > 110;
  const second = c.narrow ? fitting(`${guest.text}${path.via ? `, ${path.via}` : ""}`, w - 24) : of.mac;
  return html`
    <g>
      ${!c.narrow && html`<${Guest} row=${row} c=${c} y=${y} />`}
      <${Flow} d=${`M${from} ${middle - 7}H${end}`} frames=${tx} kind=${tone} />
      <${Flow} d=${`M${end} ${middle + 7}H${from}`} frames=${rx} kind=${tone} />
      ${room && html`
        <g class="rate" aria-hidden="true">
          ${tx >= 0.5 && html`<text x=${from + 8} y=${middle - 14}>${count(tx)}/s</text>`}
          ${rx >= 0.5 && html`<text x=${end - 8} y=${middle + 23} text-anchor="end">${count(rx)}/s</text>`}
        </g>
      `}
      ${dropped > 0 && room && html`
        <text class="drop" x=${end - 8} y=${middle - 14} text-anchor="end" aria-hidden="true">
          ${count(dropped)}/s ${reason.slice(3).replaceAll("_", " ")}</text>
      `}
      <a href=${href} class=${`port ${tone} ${guest.bad ? "bad" : ""} ${guest.none ? "vacant" : ""}`}>
        <rect x=${x + 0.5} y=${y + 0.5} width=${w - 1} height=${BOX - 1} rx="4" />
        <rect class="strip" x=${x + 0.5} y=${y + 0.5} width="4" height=${BOX - 1} rx="2" />
        <text x=${x + 14} y=${y + 19} class="strong">${name}</text>
        <text x=${x + w - 24} y=${y + 19} text-anchor="end">${fitting(vlan, w - 90)}</text>
        <circle class=${`link ${link}`} cx=${x + w - 12} cy=${y + 15} r="4" />
        <text x=${x + 14} y=${y + 35} class=${c.narrow ? "faint" : "faint mono"}>${second}</text>
        <title>${spoken(row, count)}</title>
      </a>
    </g>
  `;
}

function Guest({ row: { guest, path, of, isVport }, c, y }) {
  const middle = y + BOX / 2;
  const [x, w] = c.guest;
  const [from, to] = c.via;
  const chip = Math.min(118, to - from - 16);
  const at = (from + to) / 2;
  const isGuest = !guest.none && !of.uplink;
  const first = of.uplink ? "Host" : guest.none ? "no guest" : "Guest";
  return html`
    <g class=${`guest ${guest.none ? "vacant" : ""} ${guest.bad ? "bad" : ""}`} aria-hidden="true">
      ${!guest.none && html`<path class=${`tie ${path.kind}`} d=${`M${from} ${middle}H${to}`} />`}
      ${path.via && chip > 60 && html`
        <g class=${`via ${path.kind}`}>
          <rect x=${at - chip / 2} y=${middle - 11} width=${chip} height="22" rx="3" />
          <text x=${at} y=${middle + 4} text-anchor="middle">${fitting(
            isVport ? "vhost" : path.via.replace(/^plugin /, ""),
            chip - 10,
          )}</text>
        </g>
      `}
      <rect x=${x + 0.5} y=${y + 0.5} width=${w - 1} height=${BOX - 1} rx="4" />
      <text x=${x + 12} y=${isGuest || of.uplink ? y + 19 : middle + 4} class=${guest.none
        ? "faint"
        : "strong"}>${first}</text>
      ${(isGuest || of.uplink) &&
        html`<text x=${x + 12} y=${y + 35} class="faint">${fitting(guest.text.replace(/^host /, ""), w - 20)}</text>`}
    </g>
  `;
}

function SoftwareSwitch({ live, c, rows, vports }) {
  const first = rows.indexOf(vports[0]);
  const y = TOP + first * ROW;
  const height = vports.length * ROW - ROW + BOX;
  const x = softX(c);
  const middle = y + height / 2;
  const [tx, rx] = [live.rate("pf", "tx_frames"), live.rate("pf", "rx_frames")];
  return html`
    <g>
      <${Flow} d=${`M${x + 18} ${middle - 7}H${c.wire[1]}`} frames=${tx} kind="emulated" />
      <${Flow} d=${`M${c.wire[1]} ${middle + 7}H${x + 18}`} frames=${rx} kind="emulated" />
      <g
        class="soft"><rect x=${x} y=${y + 0.5} width="18" height=${height -
          1} rx="3" /><title>software switch of the vhost service, on the PF's pool</title>
        ${height > 90 &&
          html`<text class="faint" text-anchor="middle" transform=${`translate(${x + 13} ${middle}) rotate(-90)`}>
          vhost</text>`}
        ${height <= 90 && !c.narrow &&
          html`<text class="faint" text-anchor="middle" x=${x + 9} y=${y + height + 12}>software switch</text>`}</g>
    </g>
  `;
}

function Nic({ live, c, height }) {
  const { nic } = live.state;
  const busy = live.engine.at(-1)?.busy ?? 0;
  const [x, w] = c.nic;
  const bar = Math.max(0, Math.min(1, busy)) * (height - 8);
  const middle = TOP + height / 2;
  return html`
    <a href="#/nic" class="nic">
      <rect x=${x + 0.5} y=${TOP + 0.5} width=${w - 1} height=${height - 1} rx="4" />
      <rect class="track" x=${x + w - 10} y=${TOP + 4} width="5" height=${height - 8} rx="2" />
      <rect class="busy" x=${x + w - 10} y=${TOP + height - 4 - bar} width="5" height=${bar} rx="2" />
      <text x=${x + (w - 10) / 2} y=${middle} text-anchor="middle" class="strong">${nic.switchMode.toUpperCase()}</text>
      ${height > 60 &&
        html`<text x=${x + (w - 10) / 2} y=${middle + 16} text-anchor="middle" class="faint">${
          Math.round(busy * 100)
        }%</text>`}
      <title>Switch: ${nic.switchMode}, engine ${Math.round(busy * 100)} % busy</title>
    </a>
  `;
}

function Uplink({ live, c, middle, bottom, width }) {
  const { spec, state, interface: name, attached } = live.state.nic.uplink;
  const isUp = state === "up" || attached;
  const [tx, rx] = [live.rate("uplink", "tx_frames"), live.rate("uplink", "rx_frames")];
  const kind = isUp ? "passthrough" : "none";
  const box = c.narrow
    ? { x: 0, y: bottom + 8, w: width, h: BOX }
    : { x: c.up[0], y: middle - BOX / 2, w: c.up[1], h: BOX };
  const nicEnd = c.nic[0] + c.nic[1];
  const title = spec.kind === "none" && attached ? "vhost-user" : specOf(spec) === "none" ? "no uplink" : specOf(spec);
  const second = spec.kind === "none" && !attached
    ? ""
    : `${state === "none" ? "attached" : state ?? "not known"}${
      name && name !== spec.name && name !== spec.interface ? ` ${name}` : ""
    }`;
  // To the uplink's pool frames are received: they leave the fabric.
  const ways = c.narrow
    ? [`M${nicEnd - 26} ${bottom - 12}V${box.y}`, `M${nicEnd - 12} ${box.y}V${bottom - 12}`]
    : [`M${nicEnd} ${middle - 7}H${box.x}`, `M${box.x} ${middle + 7}H${nicEnd}`];
  const room = box.x - nicEnd > 70;
  return html`
    <g>
      <${Flow} d=${ways[0]} frames=${rx} kind=${kind} />
      <${Flow} d=${ways[1]} frames=${tx} kind=${kind} />
      ${!c.narrow && room && html`
        <g class="rate" aria-hidden="true">
          ${rx >= 0.5 && html`<text x=${nicEnd + 8} y=${middle - 14}>${count(rx)}/s</text>`}
          ${tx >= 0.5 && html`<text x=${box.x - 8} y=${middle + 23} text-anchor="end">${count(tx)}/s</text>`}
        </g>
      `}
      <a href="#/nic" class=${`port ${kind} ${state === "failed" ? "bad" : ""} ${second === "" ? "vacant" : ""}`}>
        <title>Uplink: ${title} ${second}, ${count(rx)} frames a second out, ${count(tx)} in</title>
        <rect x=${box.x + 0.5} y=${box.y + 0.5} width=${box.w - 1} height=${box.h - 1} rx="4" />
        <text x=${box.x + 12} y=${second === "" ? box.y + BOX / 2 + 4 : box.y + 19} class=${second === ""
          ? "faint"
          : "strong"}>${fitting(title, box.w - 20, true)}</text>
        <text x=${box.x + 12} y=${box.y + 35} class="faint">${fitting(second, box.w - 20)}</text>
      </a>
    </g>
  `;
}
