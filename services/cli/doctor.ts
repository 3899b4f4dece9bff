/** `fabric doctor`: why a guest has no traffic. It looks, changes nothing, and says what to do. */
import type { Command } from "commander";
import { COUNTERS } from "../../shared/layout/counter_names.ts";
import type { FabricStats, NicView, PortState, Vf } from "../../shared/api/mod.ts";
import { ADVICE } from "./advice.ts";
import { type Context, examples } from "./context.ts";
import { parseIds } from "./values.ts";

/** How long counters are watched. */
const WATCH_MS = 1000;

/** What was found about one VF. */
export interface Finding {
  vf: number;
  /** Whether it keeps frames from moving. */
  bad: boolean;
  text: string;
}

/** What is known of one VF. */
export interface Patient {
  vf: Vf;
  nic: NicView;
  port: PortState | undefined;
  before: Record<string, number>;
  after: Record<string, number>;
}

/** What keeps a VF's frames from moving, or that nothing does. Pure. */
export function examine({ vf, nic, port, before, after }: Patient): Finding[] {
  const findings: Finding[] = [];
  const bad = (text: string) => findings.push({ vf: vf.id, bad: true, text });
  if (vf.attached === null) bad("the NIC does not answer: look at what `up` says, or `journalctl -u ringfabric`");
  else if (!vf.attached) {
    const last = port?.lastEnd ?? vf.lastDetach;
    bad(`no guest is attached: it attaches at ${vf.socket}${last ? `; the last one left because ${last}` : ""}`);
  }
  if (vf.linkState === "disable") bad(`its link is off: fabric vf set ${vf.id} state auto`);
  else if (vf.linkState === "auto" && nic.link === "down") bad("the NIC's link is down: fabric nic set link up");
  for (const queue of vf.queues ?? []) {
    if (queue.state === "error") bad(`queue ${queue.index} has stopped: ${queue.reason} (${queue.detail})`);
    if (queue.quarantineMs > 0) bad(`queue ${queue.index} kicks without work and is not listened to for a while`);
  }
  for (const { index, running, enabled, error } of port?.session?.vrings ?? []) {
    if (error !== undefined) bad(`ring ${index} has stopped: ${error}`);
    else if (enabled && !running) bad(`ring ${index} waits: its size, addresses, kick or memory has not come yet`);
  }
  for (const [name, meaning] of COUNTERS) {
    const more = (after[name] ?? 0) - (before[name] ?? 0);
    if (more > 0 && ADVICE[name] !== undefined) bad(`${name} grows by ${more}/s: ${meaning}. ${ADVICE[name]}`);
  }
  const moved = (name: string) => (after[name] ?? 0) - (before[name] ?? 0);
  const text = `${moved("rx_frames")} frames/s to the guest, ${moved("tx_frames")} frames/s from it`;
  return [...findings, { vf: vf.id, bad: false, text }];
}

/** Adds `doctor`. */
export function doctorCommand(program: Command, context: Context): void {
  examples(
    program.command("doctor [n]").description("why a guest has no traffic; ends with 1 if something keeps it away"),
    "doctor 0",
    "doctor",
  ).action(async (n: string | undefined) => {
    const { client } = context;
    const stats = () => context.body<FabricStats>(client.api.v1.stats.$get()).catch(() => undefined);
    const before = await stats();
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    const [after, vfs, nic, ports] = await Promise.all([
      stats(),
      context.body<Vf[]>(client.api.v1.vfs.$get()),
      context.body<NicView>(client.api.v1.nic.$get()),
      context.vhost.ask<PortState[]>("GET", "/api/v1/ports").catch(() => []),
    ]);
    // Without a number: those that have a guest.
    const used = vfs.filter(({ attached }) => attached !== false).map(({ id }) => id);
    const ids = n === undefined ? used : parseIds(n, vfs.map(({ id }) => id));
    const findings = await Promise.all(ids.map(async (id) =>
      examine({
        vf: vfs[id] ?? await context.getVf(id),
        nic,
        port: ports.find(({ port }) => port === id),
        before: before?.vfs[id]?.counters ?? {},
        after: after?.vfs[id]?.counters ?? {},
      })
    ));
    const all = findings.flat();
    context.show(
      all,
      () => all.map(({ vf, bad, text }) => `${bad ? "!" : " "} vf ${vf}: ${text}`).join("\n") || "no VF has a guest",
    );
    if (all.some(({ bad }) => bad)) Deno.exit(1);
  });
}
