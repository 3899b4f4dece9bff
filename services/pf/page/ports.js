/** What picture and table show of each port: one row for each VF and vport. */
import { guestOf, pathOf, vlanOf } from "./format.js";

/** All ports: VFs by number, then vports. */
export function portRows(live) {
  const { vfs, vports = {} } = live.state;
  const byId = (a, b) => a.id - b.id;
  return [
    ...Object.values(vfs).sort(byId).map((vf) => row(live, `vf${vf.id}`, vf)),
    ...Object.values(vports).sort(byId).map((vport) => row(live, `vport${vport.id}`, vport)),
  ];
}

function row(live, port, of) {
  const isVport = port.startsWith("vport");
  const drops = live.drops(port);
  const dropped = drops.reduce((sum, [, rate]) => sum + rate, 0);
  const [reason] = drops.sort(([, a], [, b]) => b - a)[0] ?? [];
  const guest = isVport && of.vf !== undefined ? { text: `has VF ${of.vf}` } : guestOf(of);
  return {
    port,
    id: of.id,
    isVport,
    href: `#/${isVport ? "vport" : "vf"}/${of.id}`,
    name: isVport ? `vport ${of.id}` : `VF ${of.id}`,
    of,
    guest,
    path: pathOf(of, isVport),
    vlan: vlanOf(of),
    link: of.link,
    // The guest sends: tx. It receives: rx.
    tx: live.rate(port, "tx_frames"),
    rx: live.rate(port, "rx_frames"),
    txBits: 8 * live.rate(port, "tx_bytes"),
    rxBits: 8 * live.rate(port, "rx_bytes"),
    dropped,
    reason,
    engine: live.rate(port, "engine_ns") / 1e9,
  };
}

/** A port in a sentence, for those who do not see the picture. */
export function spoken({ name, guest, path, vlan, link, tx, rx, dropped }, count) {
  const mode = path.kind === "none" ? "" : `, ${path.kind}${path.via ? `, ${path.via}` : ""}`;
  const drops = dropped > 0 ? `, drops ${count(dropped)} a second` : "";
  return `${name}: ${guest.text}${mode}, ${vlan}, link ${link}, sends ${count(tx)} and receives ${
    count(rx)
  } frames a second${drops}`;
}
