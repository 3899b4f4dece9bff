/** `fabric nic`, `stats`, `filters`, `events`: the whole NIC. */
import type { Command } from "commander";
import {
  bearer,
  type FabricStats,
  type Filter,
  type NicPatch,
  type NicView,
  print,
  readEvents,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { mirror, NotUnderstood, readVlans, UsageError } from "./values.ts";
import { type Sample, statsTable } from "./stats_view.ts";
import { nicDetail } from "./nic_views.ts";
import { eventLine, filterTable } from "./views.ts";

const COUNT_MAX = 1_000_000_000;

/** Words of `nic set`, and the fields that they are. */
const NIC_WORDS = new Map<string, (value: string) => Record<string, unknown>>([
  ["numvfs", (value) => ({ numVfs: /^\d+$/.test(value) ? Number(value) : value })],
  ["mode", (value) => ({ switchMode: value })],
  ["link", (value) => ({ link: value })],
  ["uplink_trunk", (value) => ({ uplinkTrunk: value === "all" ? value : readVlans(value, "uplink_trunk") })],
  ["uplink_native_vlan", (value) => ({ uplinkNativeVlan: /^\d+$/.test(value) ? Number(value) : value })],
  ["pf_mirror", (value) => ({ pfMirror: mirror(value, "pf_mirror") })],
]);
const WORDS = [...NIC_WORDS.keys()].join(" ");

function nicPatch(pairs: readonly string[]): NicPatch {
  if (pairs.length === 0 || pairs.length % 2 !== 0) {
    throw new NotUnderstood("say a word and a value, such as: numvfs 8");
  }
  let patch: Record<string, unknown> = {};
  for (let i = 0; i < pairs.length; i += 2) {
    const [word, value] = [(pairs[i] ?? "").toLowerCase(), pairs[i + 1] ?? ""];
    const read = NIC_WORDS.get(word);
    if (!read) throw new NotUnderstood(`${word} cannot be set; words: ${WORDS}`);
    const fields = read(value);
    if (Object.keys(fields).some((field) => field in patch)) {
      throw new NotUnderstood(`${word} is said twice: say it once`);
    }
    patch = { ...patch, ...fields };
  }
  return patch as NicPatch;
}

/** Adds `nic`, `stats`, `filters` and `events`. */
export function nicCommands(program: Command, context: Context): void {
  const nic = program.command("nic").description("the NIC: VFs, switch mode, link, engine");
  const show = async () => {
    const found = await context.body<NicView>(context.client.api.v1.nic.$get());
    context.show(found, () => nicDetail(found));
  };
  examples(nic.command("show", { isDefault: true }).description("how it is"), "nic").action(show);
  examples(
    nic.command("set <pairs...>").description(`change it: ${WORDS}`),
    "nic set numvfs 8",
    "nic set mode vepa link down",
    "nic set link auto",
    "nic set uplink_trunk 10,20-22 uplink_native_vlan 10",
    "nic set pf_mirror both:3",
  ).action(async (pairs: string[]) => {
    const json = nicPatch(pairs);
    const changed = await context.body<NicView>(context.client.api.v1.nic.$patch({ json }));
    context.show(changed, () => nicDetail(changed));
  });

  const sample = async (): Promise<Sample> => ({
    stats: await context.body<FabricStats>(context.client.api.v1.stats.$get()),
    atMs: performance.now(),
  });
  examples(
    program.command("stats").description("counters of all VFs and vports, the PF and the uplink")
      .option("--watch", "rates, every second, until Ctrl-C", false)
      .option("--count <n>", "with --watch: stop after so many", wholeNumber(1, COUNT_MAX)),
    "stats",
    "stats --watch",
  ).action(async ({ watch, count = Infinity }: { watch: boolean; count?: number }) => {
    let before = await sample();
    if (!watch) return context.show(before.stats, () => statsTable(before));
    context.progress.stop();
    for (let i = 0; i < count; i++) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const now = await sample();
      if (Deno.stdout.isTerminal()) print("\x1b[2J\x1b[H");
      const from = before;
      context.show({ before: from, now }, () => statsTable(now, from));
      before = now;
    }
  });

  examples(program.command("filters").description("the address filter table"), "filters").action(async () => {
    const filters = await context.body<Filter[]>(context.client.api.v1.filters.$get());
    context.show(filters, () => filterTable(filters));
  });

  examples(
    program.command("events").description("every change of state as it happens, until Ctrl-C")
      .option("--count <n>", "stop after so many", wholeNumber(1, COUNT_MAX)),
    "events",
    "--json events",
  ).action(async ({ count }: { count?: number }) => {
    const { api, token } = context.fabric;
    context.progress.stop();
    let seen = 0;
    for await (const event of readEvents<Record<string, unknown>>(`${api}/api/v1/events`, { headers: bearer(token) })) {
      context.show(event, () => eventLine(event));
      if (++seen === count) return;
    }
    throw new UsageError("the fabric has ended the stream");
  });
}
