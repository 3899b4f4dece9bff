/** How uplinks are shown: one with everything known of it, all of them in a table, and the NIC with its own. */
import { formatUplinkSpec, type NicView, type UplinkView } from "../../shared/api/mod.ts";
import { formatVlans } from "./values.ts";
import { factLines, table } from "./views.ts";

type Line = NicView["uplink"] | UplinkView;

/** Whether it is up, and why not. */
function stateWords({ state, reason }: Pick<Line, "state" | "reason">): string {
  const word = state ?? "not known: the NIC does not answer";
  return reason === undefined ? word : `${word}: ${reason}`;
}

/** A pool, as the options of `fabric uplink` name it. */
function poolWord(pool: UplinkView["pool"]): string {
  return typeof pool === "number" ? `vf ${pool}` : pool;
}

/** What is behind a pool, and whether it is up. */
function uplinkWords(line: Pick<Line, "spec" | "state" | "reason">): string {
  return line.spec.kind === "none" ? "none" : `${formatUplinkSpec(line.spec)}, ${stateWords(line)}`;
}

/** One uplink with everything known of it. */
export function uplinkDetail(uplink: UplinkView): string {
  const { pool, spec, mtu, mac, io, interface: name, offloads, counters } = uplink;
  const fact = (word: string, value: string | number | undefined): [string, string | number][] =>
    value === undefined || value === "" ? [] : [[word, value]];
  const { kind: _, ...settings } = spec;
  const lines = factLines([
    ["is", uplinkWords(uplink)],
    ...Object.entries(settings).flatMap(([word, value]) => fact(word, String(value))),
    ...(name === undefined || "name" in spec || "interface" in spec ? [] : fact("interface", name)),
    ...fact("mac", mac),
    ...fact("mtu", mtu),
    ...fact("frames by", io),
    ...fact("offloads", offloads.join(" ")),
  ]);
  const moved = Object.entries(counters).filter(([, value]) => value > 0);
  return [
    `Uplink of ${pool === "uplink" ? "the fabric" : poolWord(pool)}`,
    ...lines,
    ...(moved.length === 0 ? [] : ["", table(["COUNTER", "VALUE"], moved)]),
  ].join("\n");
}

/** All uplinks, a line each. */
export function uplinkTable(uplinks: readonly UplinkView[]): string {
  return table(
    ["OF", "IS", "STATE", "BY"],
    uplinks.map((uplink) => [
      poolWord(uplink.pool),
      formatUplinkSpec(uplink.spec),
      stateWords(uplink),
      uplink.io ?? "-",
    ]),
  );
}

/** The uplink's port, which a front-end may have where nothing of the host is. */
function portWords({ socket, attached }: NicView["uplink"]): string {
  return attached ? `a front-end at ${socket}` : `a front-end may attach at ${socket}`;
}

/** Whether another process takes over if that of `service` dies. */
function standbyWords({ state, pid }: NonNullable<NicView["standby"]>, service: string): string {
  if (state === "none") return `none: if the process of ${service} dies, its guests wait for a new one`;
  return state === "ready" ? `ready (process ${pid})` : `process ${pid} is being told what there is`;
}

/** The NIC. */
export function nicDetail(nic: NicView): string {
  const { numVfs, switchMode, link, carrier, uplinkTrunk, uplinkNativeVlan, pfMirror } = nic;
  const { pfMac, reachable, uplink, engine } = nic;
  const facts: [string, string | number][] = [
    ["numvfs", numVfs],
    ["mode", switchMode],
    ["link", link === carrier ? link : `${link}: ${carrier}`],
    ["uplink_trunk", uplinkTrunk === "all" ? uplinkTrunk : formatVlans(uplinkTrunk)],
    ["uplink_native_vlan", uplinkNativeVlan],
    ["pf_mirror", pfMirror ?? "none"],
    ["pf mac", pfMac],
    ["state", reachable ? "running" : "does not answer"],
    ["uplink", uplink.spec.kind === "none" ? `none; ${portWords(uplink)}` : uplinkWords(uplink)],
    ...(nic.standby ? [["standby", standbyWords(nic.standby, "the NIC")] as [string, string]] : []),
    ...(nic.vhostStandby ? [["vhost's standby", standbyWords(nic.vhostStandby, "vhost")] as [string, string]] : []),
    ...(engine
      ? [
        ["engine busy", `${(engine.busyRatio * 100).toFixed(1)} % since it started`],
        ["frames", engine.framesTotal],
        ["filters", engine.filters],
        ["memory left", `${(engine.arenaFreeBytes / 1024 ** 2).toFixed(0)} MiB`],
      ] as [string, string | number][]
      : []),
  ];
  const width = Math.max(...facts.map(([name]) => name.length));
  return facts.map(([name, value]) => `${name.padEnd(width)}  ${value}`).join("\n");
}
