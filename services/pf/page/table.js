/** All ports as a table: what the picture shows, to be sorted, filtered and read aloud. */
import { bits, count, percent, waited } from "./format.js";
import { portRows } from "./ports.js";
import { html, useState } from "./vendor/preact.js";

const number = (value, text) => ({ value, text, isNumber: true });

const COLUMNS = [
  ["Port", ({ name, isVport, id }) => ({ value: id + (isVport ? 1000 : 0), text: name })],
  ["Guest", ({ guest }) => ({ value: guest.text, text: guest.text })],
  ["Mode", ({ path }) => ({ value: path.kind, text: path.kind === "none" ? "–" : path.kind })],
  ["By way of", ({ path }) => ({ value: path.via, text: path.via || "–" })],
  ["MAC", ({ of }) => ({ value: of.mac, text: of.mac, isMono: true })],
  ["VLAN", ({ vlan, of }) => ({ value: of.vlan || 5000, text: vlan })],
  ["Link", ({ link }) => ({ value: link, text: link })],
  ["Tx frames/s", ({ tx }) => number(tx, count(tx))],
  ["Rx frames/s", ({ rx }) => number(rx, count(rx))],
  ["Tx rate", ({ txBits }) => number(txBits, bits(txBits))],
  ["Rx rate", ({ rxBits }) => number(rxBits, bits(rxBits))],
  ["Drops/s", ({ dropped, reason }) => number(dropped, dropped > 0 ? `${count(dropped)} ${reason}` : "0")],
  ["Wait p99", ({ of }) => number(of.latency?.recent?.p99Us ?? -1, waited(of.latency?.recent?.p99Us))],
  ["Engine", ({ engine }) => number(engine, percent(engine))],
];

/** From this column on there are numbers, of which the greatest are looked for first. */
const FIRST_NUMBER = 7;

/** The table. */
export function PortTable({ live }) {
  const [[column, isDown], setSort] = useState([0, false]);
  const [text, setText] = useState("");
  const rows = portRows(live).map((row) => ({ row, cells: COLUMNS.map(([, cell]) => cell(row)) }));
  const found = rows.filter(({ cells }) =>
    text === "" || cells.some((cell) => String(cell.text).toLowerCase().includes(text.toLowerCase()))
  );
  const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  found.sort((a, b) => (isDown ? -1 : 1) * compare(a.cells[column].value, b.cells[column].value));
  const sortBy = (i) => setSort([i, i === column ? !isDown : i >= FIRST_NUMBER]);
  return html`
    <section class="card">
      <div class="filters" role="search">
        <label for="port-text">Ports like
          <input id="port-text" type="search" value=${text} onInput=${(event) => setText(event.target.value)} />
        </label>
        <p class="count">${found.length} of ${rows.length}</p>
      </div>
      <div class="scroll" tabindex="0" role="group" aria-label="Ports">
        <table>
          <thead>
            <tr>${COLUMNS.map(([name], i) =>
              html`
                <th scope="col" class=${i >= FIRST_NUMBER ? "number" : ""} aria-sort=${i === column
                  ? isDown ? "descending" : "ascending"
                  : undefined}>
                  <button type="button" onClick=${() => sortBy(i)}>${name}</button></th>
              `
            )}</tr>
          </thead>
          <tbody>${found.map(({ row, cells }) =>
            html`
              <tr key=${row.port}>
                <th scope="row"><a href=${row.href}>${row.name}</a></th>
                ${cells.slice(1).map((cell, i) =>
                  html`
                    <td class=${`${cell.isNumber ? "number" : ""} ${cell.isMono ? "mono" : ""} ${
                      i === 10 && row.dropped > 0 ? "bad" : ""
                    } ${i === 0 && row.guest.bad ? "bad" : ""}`}>${cell.text}</td>
                  `
                )}
              </tr>
            `
          )}</tbody>
        </table>
      </div>
    </section>
  `;
}
