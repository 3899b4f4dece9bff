/** What the CLI prints: tables a person can read. */
import Table from "cli-table3";
import {
  type Filter,
  formatUplinkSpec,
  LATENCY_LIMITS_US,
  type LatencyView,
  type ModeStep,
  type Multicast,
  type NicView,
  type PortPolicy,
  type Vf,
  type VfMode,
  type VfStats,
  type VportView,
} from "../../shared/api/mod.ts";
import { formatVlans } from "./values.ts";

const PLAIN = {
  "top": "",
  "top-mid": "",
  "top-left": "",
  "top-right": "",
  "bottom": "",
  "bottom-mid": "",
  "bottom-left": "",
  "bottom-right": "",
  "left": "",
  "left-mid": "",
  "mid": "",
  "mid-mid": "",
  "right": "",
  "right-mid": "",
  "middle": "  ",
};

/** Rows under a head, columns aligned; numbers to the right. */
export function table(head: string[], rows: (string | number)[][]): string {
  const numeric = head.map((_, i) => rows.length > 0 && rows.every((row) => /^[-\d.,]+$/.test(String(row[i]))));
  const made = new Table({
    head,
    chars: PLAIN,
    style: { "padding-left": 0, "padding-right": 0, head: [], border: [] },
    colAligns: numeric.map((right) => right ? "right" : "left"),
  });
  made.push(...rows.map((row) => row.map(String)));
  return made.toString().split("\n").map((line) => line.trimEnd()).join("\n");
}

function rate(min: number, max: number): string {
  if (min === 0 && max === 0) return "-";
  return `${min || "-"}/${max || "-"}`;
}

function vlan(vf: PortPolicy): string {
  if (vf.vlan === 0) {
    const native = vf.nativeVlan === 0 ? [] : [`native ${vf.nativeVlan}`];
    const tags = vf.trust ? ["all tags"] : vf.trunk.length > 0 ? [`trunk ${formatVlans(vf.trunk)}`] : [];
    return [...native, ...tags].join(" ") || "-";
  }
  return `${vf.vlan}${vf.qos ? ` qos ${vf.qos}` : ""}${vf.vlanProto === "802.1ad" ? " 802.1ad" : ""}`;
}

/** What the VF's guest is doing, in a word or two. */
function guestState(vf: Vf): string {
  if (vf.uplink) return `${formatUplinkSpec(vf.uplink.spec)} ${vf.uplink.state ?? "not known"}`;
  if (vf.attached === null || vf.queues === null) return "not known";
  if (!vf.attached) return "no guest";
  const failed = vf.queues.filter((queue) => queue.state === "error").length;
  if (failed > 0) return `${failed} queue(s) in error`;
  return vf.queues.length === 0 ? "attached" : `${vf.queues.length} queues run`;
}

const POLICY_HEADINGS = ["MAC", "VLAN", "SPOOFCHK", "TRUST", "LINK", "MIN/MAX MBIT/S"];

/** Whether the link is up, and by whose word if it is not the NIC's. */
function linkCell(linkState: PortPolicy["linkState"], carrier: NicView["carrier"] | undefined): string {
  if (linkState !== "auto") return linkState === "enable" ? "up (enable)" : "down (disable)";
  return carrier ?? "auto";
}

function policyCells(policy: PortPolicy, carrier?: NicView["carrier"]): string[] {
  const { mac, spoofCheck, trust, linkState, minTxRate, maxTxRate } = policy;
  const onOff = (on: boolean) => on ? "on" : "off";
  return [mac, vlan(policy), onOff(spoofCheck), onOff(trust), linkCell(linkState, carrier), rate(minTxRate, maxTxRate)];
}

/** All VFs, a line each. */
export function vfTable(vfs: readonly Vf[], carrier: NicView["carrier"] | undefined, wide = false): string {
  return table(
    ["VF", ...POLICY_HEADINGS, "MODE", "GUEST", ...(wide ? ["MTU", "MULTICAST", "HARDWARE", "SOCKET"] : [])],
    vfs.map((vf) => [
      vf.id,
      ...policyCells(vf, carrier),
      vf.attached ? vf.plugin ?? vf.mode ?? "-" : "-",
      vf.vport === null ? guestState(vf) : `vport ${vf.vport}'s guest`,
      ...(wide ? [vf.mtu, groups(vf.multicast), vf.hardware, vf.socket] : []),
    ]),
  );
}

/** Steps of a change of mode, with what went wrong. */
export function stepTable(title: string, steps: readonly ModeStep[]): string {
  return table(
    [title, "MS", "ERROR"],
    steps.map(({ step, ms, error, lost }) => [step, ms, error ?? (lost ? `${lost} descriptors were not sent` : "")]),
  );
}

/** Who drives a VF, and how the last change went. */
export function modeDetail({ mode, plugin, version, dataPath, frames, ...of }: VfMode): string {
  const { changing, steps, lastFailure } = of;
  const how = plugin ? `, plugin ${plugin} ${version}` : dataPath ? `, ${dataPath}` : "";
  const lines = [`${mode}${how}${changing ? ", changing" : ""}`];
  if (frames) {
    const { sentDirect, sentCopied, receivedDirect, receivedCopied } = frames;
    lines.push(
      `frames sent: ${sentDirect} directly, ${sentCopied} copied by the host; received: ` +
        `${receivedDirect} directly, ${receivedCopied} copied`,
    );
  }
  if (steps && steps.length > 0) {
    lines.push("", stepTable("STEP OF THE LAST CHANGE", steps));
  }
  if (lastFailure) lines.push("", `last failure: ${lastFailure.reason}: ${lastFailure.detail}`);
  return lines.join("\n");
}

/** All vports, a line each. */
export function vportTable(vports: readonly VportView[]): string {
  return table(
    ["VPORT", ...POLICY_HEADINGS, "GUEST"],
    vports.map((vport) => [
      vport.id,
      ...policyCells(vport),
      vport.vf !== null
        ? `drives vf ${vport.vf}`
        : vport.attached === null
        ? "not known"
        : vport.attached
        ? "attached"
        : "no guest",
    ]),
  );
}

/** Multicast groups, as they can be set. */
function groups(multicast: Multicast): string {
  return typeof multicast === "string" ? multicast : multicast.join(",") || "none";
}

/** What the NIC does not say while it is away. */
const UNKNOWN = "not known: the NIC does not answer";

function memoryText(memory: Vf["memory"]): string {
  if (!memory) return UNKNOWN;
  const mib = (memory.bytes / 1024 ** 2).toFixed(0);
  return `${mib} MiB in ${memory.regions} regions${memory.sealed ? "" : ", not sealed"}`;
}

/** What the VF's guest has of its limits, and what it was refused. */
function limitFacts(limits: Vf["limits"]): [string, string][] {
  if (!limits) return [["limits", UNKNOWN]];
  const { memory, buffered, receives, submissions, refused } = limits;
  const mib = (bytes: number) => `${(bytes / 1024 ** 2).toFixed(1)}`.replace(/\.0$/, "");
  const refusals = Object.entries(refused).map(([limit, times]) => `${limit} ${times}×`);
  return [
    ["mapped memory", `${mib(memory.used)} of ${mib(memory.limit)} MiB`],
    ["waiting frames", `${mib(buffered.used)} of ${mib(buffered.limit)} MiB`],
    ["receive entries", `${receives.used} of ${receives.limit}, ${receives.posted} posted`],
    ["transmit entries", `${submissions.used} of ${submissions.limit}, ${submissions.posted} posted`],
    ...(refusals.length > 0 ? [["refused", refusals.join(", ")] as [string, string]] : []),
  ];
}

/** A time of a latency histogram, whose last bucket has no end. */
function microseconds(us: number | null): string {
  const longest = LATENCY_LIMITS_US.at(-1) ?? 0;
  return us === null ? "-" : us >= longest ? `over ${longest} µs` : `${us} µs`;
}

/** How long frames wait in their ring. */
function latencyText(latency: LatencyView | null): string {
  if (latency === null) return "not known: the vhost service does not answer";
  const { samples, p50Us, p99Us } = latency;
  if (samples === 0) return "no frames yet";
  return `p50 ${microseconds(p50Us)}, p99 ${microseconds(p99Us)}, of ${samples} samples`;
}

/** A policy, in the words by which it is set. */
function policyFacts(vf: PortPolicy & { mirror: string | null }): [string, string | number][] {
  return [
    ["mac", vf.mac],
    ["vlan", vf.vlan],
    ["qos", vf.qos],
    ["proto", vf.vlanProto],
    ["trunk", formatVlans(vf.trunk)],
    ["native_vlan", vf.nativeVlan],
    ["allowed_macs", vf.allowedMacs.join(",") || "none"],
    ["allowed_ips", vf.allowedIps.join(",") || "all"],
    ["spoofchk", vf.spoofCheck ? "on" : "off"],
    ["trust", vf.trust ? "on" : "off"],
    ["promisc", vf.promisc ? "on" : "off"],
    ["state", vf.linkState],
    ["min_tx_rate", vf.minTxRate],
    ["max_tx_rate", vf.maxTxRate],
    ["max_broadcast_rate", vf.maxBroadcastRate],
    ["multicast", groups(vf.multicast)],
    ["guest_multicast", vf.guestMulticast === null ? "unset" : groups(vf.guestMulticast)],
    ["mirror", vf.mirror ?? "none"],
    ["mtu", vf.mtu],
    ["queue_pairs", vf.queuePairs],
    ["adaptive-rx", vf.adaptiveRx ? "on" : "off"],
    ["rx-usecs", vf.rxUsecs],
    ["rx-frames", vf.rxFrames],
    ["adaptive-tx", vf.adaptiveTx ? "on" : "off"],
    ["tx-usecs", vf.txUsecs],
    ["tx-frames", vf.txFrames],
    ["mac_fixed", vf.macFixed ? "on" : "off"],
  ];
}

/** Facts, a line each. */
export function factLines(facts: readonly [string, string | number][]): string[] {
  const width = Math.max(...facts.map(([name]) => name.length));
  return facts.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`);
}

/** One VF with everything known of it. */
export function vfDetail(vf: Vf, { counters, latency }: VfStats): string {
  const lines = factLines([
    ...policyFacts(vf),
    ["hardware", vf.hardware],
    [
      "mode",
      vf.plugin ? `${vf.mode}, plugin ${vf.plugin}` : vf.dataPath ? `${vf.mode}, ${vf.dataPath}` : vf.mode ?? UNKNOWN,
    ],
    ["socket", vf.socket],
    ["guest", guestState(vf)],
    ...(vf.owner === undefined ? [] : [["driven by", vf.owner] as [string, string]]),
    ...(vf.uplink?.reason === undefined ? [] : [["reason", vf.uplink.reason] as [string, string]]),
    ...(vf.lastDetach === undefined ? [] : [["last detach", vf.lastDetach] as [string, string]]),
    ["memory", memoryText(vf.memory)],
    ...limitFacts(vf.limits),
    ["learned MACs", vf.learnedMacs ?? UNKNOWN],
    ["latency", latencyText(latency)],
  ]);
  const queues = (vf.queues ?? []).map((queue) => [
    queue.index,
    queue.kind,
    queue.size,
    queue.state,
    queue.calls,
    queue.callsSaved,
    queue.calls > 0 ? (queue.frames / queue.calls).toFixed(1) : "-",
    queue.kickOffences > 0 ? `${queue.quarantineMs} ms, ${queue.kickOffences} offences` : "",
    queue.reason ? `${queue.reason} (${queue.detail})` : "",
  ]);
  const moved = Object.entries(counters).filter(([name, value]) => value > 0 || /^(rx|tx)_(frames|bytes)$/.test(name));
  const parts = [`VF ${vf.id}`, ...lines];
  const heads = ["QUEUE", "KIND", "SIZE", "STATE", "INTERRUPTS", "SAVED", "FRAMES EACH", "QUARANTINE", "REASON"];
  if (queues.length > 0) parts.push("", table(heads, queues));
  parts.push("", table(["COUNTER", "VALUE"], moved.map(([name, value]) => [name, value])));
  return parts.join("\n");
}

/** The filter table. */
export function filterTable(filters: readonly Filter[]): string {
  return table(
    ["MAC", "VLAN", "POOL", "SOURCE", "AGE S"],
    filters.map((filter) => [
      filter.mac,
      filter.vlan === "any" ? "any" : `${filter.vlan}${filter.proto === "802.1ad" ? " 802.1ad" : ""}`,
      typeof filter.pool === "number" ? `vf ${filter.pool}` : filter.pool,
      filter.source,
      filter.ageSeconds,
    ]),
  );
}

/** One vport with its counters. */
export function vportDetail(vport: VportView): string {
  const moved = Object.entries(vport.counters ?? {}).filter(([, value]) => value > 0);
  return [
    vportTable([vport]),
    "",
    ...factLines([...policyFacts(vport), ["socket", vport.socket], ["latency", latencyText(vport.latency)]]),
    "",
    table(["COUNTER", "VALUE"], moved.map(([name, value]) => [name, value])),
  ].join("\n");
}

/** One event in a line. */
export function eventLine({ type, at, ...rest }: Record<string, unknown>): string {
  const said = Object.entries(rest).map(([name, value]) =>
    `${name} ${typeof value === "string" ? value : JSON.stringify(value)}`
  );
  return `${at} ${type} ${said.join(" ")}`.trimEnd();
}
