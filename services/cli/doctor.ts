/** `fabric doctor`: why a guest has no traffic. It looks, changes nothing, and says what to do. */
import type { Command } from "commander";
import { COUNTERS } from "../../shared/layout/counter_names.ts";
import { type FabricStats, formatUplinkSpec, type NicView, type PortState, type Vf } from "../../shared/api/mod.ts";
import { ADVICE } from "./advice.ts";
import { type Context, examples, EXIT_TROUBLE } from "./context.ts";
import { parseIds } from "./values.ts";

/** How long counters are watched. */
const WATCH_MS = 1000;

/** How long a service may take to say that it is ready. */
const READY_MS = 3000;

/** What was found about one VF, or about all. */
export interface Finding {
  vf?: number;
  /** Whether it keeps frames from moving. */
  bad: boolean;
  text: string;
}

type UplinkLine = Pick<NicView["uplink"], "spec" | "state" | "reason">;

/** A VF's counters twice, so many seconds apart. */
export interface Watched {
  seconds: number;
  before: Record<string, number>;
  after: Record<string, number>;
}

/** What is known of one VF. */
export interface Patient {
  vf: Vf;
  nic: NicView;
  port: PortState | undefined;
  /** None: they could not be read. */
  counters: Watched | undefined;
}

/** What keeps a VF's frames from moving, or that nothing does. Pure. */
export function examine({ vf, nic, port, counters }: Patient): Finding[] {
  const findings: Finding[] = [];
  const bad = (text: string) => findings.push({ vf: vf.id, bad: true, text });
  const uplink = vf.uplink && uplinkFault(vf.uplink);
  if (uplink) bad(uplink);
  else if (vf.attached === null) bad("the NIC does not answer: look at what `up` says, or `journalctl -u ringfabric`");
  else if (!vf.attached && !vf.uplink) {
    const last = port?.lastEnd ?? vf.lastDetach;
    bad(`no guest is attached: it attaches at ${vf.socket}${last ? `; the last one left because ${last}` : ""}`);
  }
  if (vf.linkState === "disable") bad(`its link is off: fabric vf set ${vf.id} state auto`);
  else if (vf.linkState === "auto" && nic.carrier === "down") {
    bad(
      nic.link === "down"
        ? "the NIC's link is down: fabric nic set link auto"
        : `its link follows the uplink, which is ${nic.uplink.state}: fabric nic set link up does not follow it, nor ` +
          `does fabric vf set ${vf.id} state enable`,
    );
  }
  for (const queue of vf.queues ?? []) {
    if (queue.state === "error") bad(`queue ${queue.index} has stopped: ${queue.reason} (${queue.detail})`);
    if (queue.quarantineMs > 0) bad(`queue ${queue.index} kicks without work and is not listened to for a while`);
  }
  for (const { index, running, enabled, error } of port?.session?.vrings ?? []) {
    if (error !== undefined) bad(`ring ${index} has stopped: ${error}`);
    else if (enabled && !running) bad(`ring ${index} waits: its size, addresses, kick or memory has not come yet`);
  }
  if (!counters) return findings;
  const { seconds, before, after } = counters;
  const moved = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
  const rate = (name: string) => `${Math.ceil(moved(name) / seconds)}`;
  for (const [name, meaning] of COUNTERS) {
    const advice = ADVICE[name]?.replaceAll("vf set N", `vf set ${vf.id}`);
    if (moved(name) > 0 && advice !== undefined) bad(`${name} grows by ${rate(name)}/s: ${meaning}. ${advice}`);
  }
  const text = `${rate("rx_frames")} frames/s to the guest, ${rate("tx_frames")} frames/s from it`;
  const said = [text, ...(findings.length > 0 ? [] : hints(vf, counters))];
  return [...findings, ...said.map((text) => ({ vf: vf.id, bad: false, text }))];
}

/** What there is to say of a VF that nothing was found to be wrong with. */
function hints({ id, vlan }: Vf, { before, after }: Watched): string[] {
  const moved = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
  if (moved("rx_frames") > 0) return [];
  if (moved("tx_frames") > 0) {
    const where = vlan === 0 ? "no VLAN" : `VLAN ${vlan}`;
    return [
      `it sends, and nothing comes back: is its peer attached, and in ${where} too? (fabric vf list, fabric filters)`,
    ];
  }
  const dropped = COUNTERS.filter(([name]) => ADVICE[name] !== undefined && (after[name] ?? 0) > 0).map(([name]) =>
    `${name} ${after[name]}`
  );
  const earlier = dropped.length === 0 ? "" : `; dropped before: ${dropped.join(", ")} (fabric vf show ${id})`;
  return [`nothing moved while it was watched: let the guest send meanwhile${earlier}`];
}

/** What is wrong with something of the host that is behind a pool, and what to do. */
export function uplinkFault({ spec, state, reason }: UplinkLine): string | undefined {
  // A capture that has been replayed to its end is as it should be.
  if (state !== "failed" && (state !== "down" || spec.kind === "pcap")) return undefined;
  return `${formatUplinkSpec(spec)} ${state === "down" ? "is down" : "has failed"}${reason ? `: ${reason}` : ""}`;
}

/** What keeps everybody's frames from moving. */
function faultsOfAll(nic: NicView, isCounted: boolean, ports: readonly PortState[] | Error): string[] {
  const uplink = uplinkFault(nic.uplink);
  return [
    ...(uplink === undefined ? [] : [`the uplink: ${uplink}`]),
    ...(isCounted ? [] : ["the counters cannot be read: does the NIC answer? (fabric nic)"]),
    ...(ports instanceof Error ? [`guests cannot attach: ${ports.message}`] : []),
  ];
}

/** Adds `doctor`. */
export function doctorCommand(program: Command, context: Context): void {
  examples(
    program.command("doctor [n]").description("why a guest has no traffic; ends with 1 if something keeps it away"),
    "doctor 0",
    "doctor",
  ).action(async (n: string | undefined) => {
    const { client } = context;
    context.failureCode = EXIT_TROUBLE;
    const stats = async () => {
      const counted = await context.body<FabricStats>(client.api.v1.stats.$get()).catch(() => undefined);
      return counted && { vfs: counted.vfs, atMs: performance.now() };
    };
    context.progress.say(`doctor: watches the counters for ${WATCH_MS / 1000} s`);
    const before = await stats();
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    const [after, vfs, nic, ports] = await Promise.all([
      stats(),
      context.body<Vf[]>(client.api.v1.vfs.$get()),
      context.body<NicView>(client.api.v1.nic.$get()),
      context.vhost.ask<PortState[]>("GET", "/api/v1/ports").catch((error) => error as Error),
    ]);
    const unready = await Promise.all([context.vhost, context.vf].map((peer) => peer.unreadiness(READY_MS)));
    // Without a number: those that have a guest.
    const used = vfs.filter(({ attached }) => attached !== false).map(({ id }) => id);
    const ids = n === undefined ? used : parseIds(n) ?? vfs.map(({ id }) => id);
    const watched = (id: number): Watched | undefined =>
      before && after && {
        seconds: (after.atMs - before.atMs) / 1000,
        before: before.vfs[id]?.counters ?? {},
        after: after.vfs[id]?.counters ?? {},
      };
    const findings = await Promise.all(ids.map(async (id) =>
      examine({
        vf: vfs[id] ?? await context.getVf(id),
        nic,
        port: ports instanceof Error ? undefined : ports.find(({ port }) => port === id),
        counters: watched(id),
      })
    ));
    const faults = faultsOfAll(nic, before !== undefined && after !== undefined, ports);
    const reasons = unready.filter((reason) => reason !== undefined);
    const all: Finding[] = [...faults, ...reasons].map((text): Finding => ({ bad: true, text })).concat(
      findings.flat(),
    );
    const who = ({ vf }: Finding) => vf === undefined ? "" : `vf ${vf}: `;
    context.show(
      all,
      () => all.map((one) => `${one.bad ? "!" : " "} ${who(one)}${one.text}`).join("\n") || "no VF has a guest",
    );
    if (all.some(({ bad }) => bad)) Deno.exit(1);
  });
}
