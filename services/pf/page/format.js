/** Numbers and names as people read them. */

/** Of the picture's text, on average, and of what is written in bold. */
const LETTER_WIDTH = 6.4;
const BOLD_WIDTH = 7.6;
/** A latency histogram's last bucket begins here. */
const LONGEST_US = 32_768;

function scaled(n, units, base = 1000) {
  let i = 0;
  let value = n;
  while (value >= base && i < units.length - 1) [value, i] = [value / base, i + 1];
  const digits = i === 0 ? 0 : value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)}\u202f${units[i]}`.trim();
}

/** A number of frames, or of frames a second: 812, 12.3 k, 1.25 M. */
export const count = (n) => scaled(Math.round(n), ["", "k", "M", "G", "T"]);
/** Bits a second. */
export const bits = (n) => scaled(n, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]);
/** Bytes of memory. */
export const bytes = (n) => scaled(n, ["B", "KiB", "MiB", "GiB"], 1024);
/** A time, of microseconds. */
export function micros(us) {
  if (us < 999.95) return `${us < 100 ? Number(us.toFixed(1)) : Math.round(us)}\u202fµs`;
  return `${(us / 1000).toPrecision(3)}\u202fms`;
}

/** What a latency histogram says: nothing if there was no sample, and of the longest only that they were longer. */
export function waited(us) {
  if (us === undefined) return "–";
  return us >= LONGEST_US ? `over ${micros(LONGEST_US)}` : micros(us);
}

/** A share of one. */
export const percent = (share) => `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)}\u202f%`;
/** A whole number with its thousands apart. */
export const whole = (n) => n.toLocaleString("en").replaceAll(",", "\u202f");
/** A time of day. */
export const clock = (at) => new Date(at).toLocaleTimeString("en-GB");

/** How long ago something was. */
export function ago(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 90) return `${s}\u202fs`;
  return s < 5400 ? `${Math.round(s / 60)}\u202fmin` : `${Math.round(s / 3600)}\u202fh`;
}

/** VLANs with runs of them put together: 10, 20-25. */
export function vlans(list) {
  const runs = [];
  for (const vid of list) {
    const run = runs.at(-1);
    if (run && vid === run[1] + 1) run[1] = vid;
    else runs.push([vid, vid]);
  }
  return runs.map(([first, last]) => first === last ? first : `${first}-${last}`).join(", ");
}

/** The VLAN of a port, in short. */
export function vlanOf({ vlan, qos, vlanProto, nativeVlan, trunk, trust }) {
  if (vlan) return `VLAN ${vlan}${qos ? ` p${qos}` : ""}${vlanProto === "802.1ad" ? " ad" : ""}`;
  const parts = [];
  if (nativeVlan) parts.push(`native ${nativeVlan}`);
  if (trust) parts.push("all tags");
  else if (trunk?.length > 0) parts.push(`trunk ${trunk.length > 3 ? `${trunk.length} VLANs` : vlans(trunk)}`);
  return parts.join(", ") || "untagged";
}

/** What is behind a pool, as the API's short form says it. */
export function specOf(spec) {
  if (!spec || spec.kind === "none") return "none";
  if (spec.kind === "pcap" && spec.replay === undefined) return `pcap, into ${spec.record}`;
  return `${spec.kind}:${spec.name ?? spec.interface ?? spec.replay}`;
}

/** What a counter counts, from its name: rx_no_buffer is "rx no buffer". */
export const words = (name) => name.replaceAll("_", " ");

/** A port's name: vf3 is "VF 3". */
export function portName(port) {
  return port.replace(/^vf(\d+)$/, "VF $1").replace(/^vport(\d+)$/, "vport $1").replace(/^pf$/, "PF pool");
}

/** What a VF's or vport's guest is doing, in a few words, and whether that is trouble. */
export function guestOf({ uplink, attached, vport, queuesRunning, queuesInError, held }) {
  if (uplink) {
    return { text: `host ${specOf(uplink.spec)} ${uplink.state ?? ""}`.trim(), bad: uplink.state === "failed" };
  }
  if (attached === undefined) return { text: "not known" };
  if (!attached) return { text: "no guest", none: true };
  const whose = vport === undefined ? "" : `vport ${vport}'s guest, `;
  if (queuesInError) {
    return { text: `${whose}${queuesInError} queue${queuesInError > 1 ? "s" : ""} in error`, bad: true };
  }
  if (held) return { text: `${whose}driver changes` };
  if (queuesRunning === undefined) return { text: `${whose}attached` };
  return { text: `${whose}${queuesRunning} queue${queuesRunning === 1 ? "" : "s"}` };
}

/** As much of a text as there is room for, in letters of the picture's size. */
export function fitting(text, width, isBold = false) {
  const letters = Math.max(1, Math.floor(width / (isBold ? BOLD_WIDTH : LETTER_WIDTH)));
  return text.length <= letters ? text : `${text.slice(0, letters - 1)}…`;
}

/** How a port's frames go: its mode, and what stands in between. */
export function pathOf({ mode, plugin, dataPath, attached }, isVport = false) {
  if (isVport) return { kind: "emulated", via: "software switch" };
  if (!attached || mode === undefined) return { kind: "none", via: "" };
  if (mode === "passthrough") return { kind: "passthrough", via: plugin ? `plugin ${plugin}` : "" };
  return { kind: "emulated", via: `vhost ${dataPath ?? "copy"}` };
}
