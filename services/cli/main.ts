/** `deno task fabric`: the fabric from the command line, in the words of `ip link set vf`. */
import { Command } from "commander";
import {
  type ModeRequest,
  oneLine,
  Peer,
  pfClient,
  qemuArguments,
  testpmdArguments,
  type Vf,
  type VfMode,
  type VportView,
} from "../../shared/api/mod.ts";
import { findFabric, type FindOptions, type FoundFabric } from "./find.ts";
import { pluginCommands } from "./plugins.ts";
import { tokenCommands } from "./tokens.ts";
import { filterTable, modeDetail, type Sample, statsTable, vfDetail, vfTable, vportTable } from "./views.ts";
import { parsePairs, SETTABLE, SETTABLE_VPORT, UsageError } from "./values.ts";

const program = new Command("fabric")
  .description("Looks at and changes a running fabric")
  .option("--api <url>", "the PF's API, if it is not this user's fabric (RINGFABRIC_API)")
  .option("--run-dir <dir>", "the fabric's run directory, where its address and its token are (RINGFABRIC_RUN_DIR)")
  .option("--json", "JSON, for programs", false);

type Client = ReturnType<typeof pfClient>;

let found: FoundFabric | undefined;

function fabric(): FoundFabric {
  return found ??= findFabric(program.opts<FindOptions>());
}

function client(): Client {
  return pfClient(fabric().api, fabric().token);
}

/** The body of an answer; throws what the API says if it is a refusal. */
async function body<T>(answer: Promise<{ ok: boolean; status: number; json(): Promise<unknown> }>): Promise<T> {
  let response;
  try {
    response = await answer;
  } catch (cause) {
    throw new UsageError(
      `no fabric answers at ${fabric().api} (${oneLine(cause)}); start one with: npx -y deno@2.9.6 task up`,
    );
  }
  const value = await response.json();
  if (response.status === 401) {
    const dir = fabric().runDir;
    throw new UsageError(
      `the fabric at ${fabric().api} does not take this token: set RINGFABRIC_TOKEN, or name its run directory with ` +
        `--run-dir (looked for in ${dir})`,
    );
  }
  if (!response.ok) throw new UsageError((value as { detail?: string }).detail ?? `HTTP ${response.status}`);
  return value as T;
}

function show(value: unknown, text: () => string): void {
  console.log(program.opts<{ json: boolean }>().json ? JSON.stringify(value) : text());
}

/** The vf service: two ports behind the PF, or where RINGFABRIC_VF says. */
function vfService(): Peer {
  const url = new URL(fabric().api);
  url.port = String(Number(url.port) + 2);
  return new Peer("the vf service", Deno.env.get("RINGFABRIC_VF") ?? url.origin, fabric().token);
}

const byId = (id: string) => ({ param: { id } });

const getVf = (id: string) => body<Vf>(client().api.v1.vfs[":id"].$get(byId(id)));
const getCounters = async (id: string) =>
  (await body<{ counters: Record<string, number> }>(client().api.v1.vfs[":id"].stats.$get(byId(id)))).counters;

const vf = program.command("vf").description("virtual functions");

vf.command("list").description("all VFs").action(async () => {
  const vfs = await body<Vf[]>(client().api.v1.vfs.$get());
  show(vfs, () => vfTable(vfs));
});

vf.command("show <n>").description("one VF: policy, queues, counters").action(async (n: string) => {
  const [found, counters] = await Promise.all([getVf(n), getCounters(n)]);
  show({ ...found, counters }, () => vfDetail(found, counters));
});

vf.command("set <n> <pairs...>").description(`change a VF: ${SETTABLE}`).action(async (n: string, pairs: string[]) => {
  const patch = parsePairs(pairs);
  const changed = await body<Vf>(client().api.v1.vfs[":id"].$patch({ ...byId(n), json: patch }));
  show(changed, () => vfTable([changed]));
});

function modeCommand(parent: Command, what: string, of: "vfs" | "vports"): void {
  parent.command("mode <n> [mode]").description(what)
    .option("--plugin <name>", "plugin to inject, such as advanced or advanced@1.0.0")
    .option("--force", "with emulated: take the VF back at once, without asking its guest")
    .action(async (n: string, mode: string | undefined, { plugin, force }: { plugin?: string; force?: boolean }) => {
      const route = client().api.v1[of][":id"].mode;
      if (!mode && (plugin || force)) throw new UsageError("--plugin and --force go with a mode to be in");
      const json = {
        mode: mode as ModeRequest["mode"],
        ...(plugin ? { plugin } : {}),
        ...(force ? { force: true } : {}),
      };
      const found = await body<VfMode>(mode ? route.$put({ ...byId(n), json }) : route.$get(byId(n)));
      show(found, () => modeDetail(found));
    });
}
modeCommand(vf, "who drives a VF; or change it: emulated, passthrough", "vfs");

interface AttachOptions {
  queuePairs: string;
  memory: string;
  kvm: boolean;
  queueSize: string;
}

function attachCommands(parent: Command): void {
  parent.command("qemu <n>").description("QEMU arguments that attach a guest to a VF")
    .option("--memory <size>", "guest memory", "512M")
    .option("--queue-pairs <n>", "queue pairs", "1")
    .option("--kvm", "for KVM instead of TCG", false)
    .action(async (n: string, options: AttachOptions) => {
      const { memory, kvm, queuePairs } = options;
      const args = qemuArguments(await getVf(n), { memory, kvm, queuePairs: Number(queuePairs) });
      show(args, () => args.join(" "));
    });
  parent.command("testpmd <n>").description("testpmd arguments that make a VF a DPDK port")
    .option("--queue-pairs <n>", "queue pairs", "1")
    .option("--queue-size <n>", "descriptors", "256")
    .action(async (n: string, options: AttachOptions) => {
      const sizes = { queuePairs: Number(options.queuePairs), queueSize: Number(options.queueSize) };
      const args = testpmdArguments(await getVf(n), sizes);
      show(args, () => args.join(" "));
    });
}
attachCommands(vf);
attachCommands(program);

async function sample(): Promise<Sample> {
  const vfs = await body<Vf[]>(client().api.v1.vfs.$get());
  const counters = await Promise.all(vfs.map(({ id }) => getCounters(String(id))));
  return { atMs: performance.now(), counters };
}

program.command("stats").description("counters of all VFs")
  .option("--watch", "rates, every second, until Ctrl-C", false)
  .option("--count <n>", "with --watch: stop after so many", "0")
  .action(async (options: { watch: boolean; count: string }) => {
    let before = await sample();
    if (!options.watch) return show(before.counters, () => statsTable(before));
    for (let i = 0; Number(options.count) === 0 || i < Number(options.count); i++) {
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const now = await sample();
      if (Deno.stdout.isTerminal()) console.log("\x1b[2J\x1b[H");
      const from = before;
      show({ before: from, now }, () => statsTable(now, from));
      before = now;
    }
  });

const vport = program.command("vport").description("guests without a VF");
vport.command("list").description("all vports").action(async () => {
  const vports = await body<VportView[]>(client().api.v1.vports.$get());
  show(vports, () => vportTable(vports));
});
vport.command("add [pairs...]").description(`a new vport: ${SETTABLE_VPORT}`).action(async (pairs: string[]) => {
  const json = pairs.length === 0 ? {} : parsePairs(pairs);
  const made = await body<VportView>(client().api.v1.vports.$post({ json }));
  show(made, () => `${vportTable([made])}\n\n${made.socket}`);
});
vport.command("set <n> <pairs...>").description(`change a vport: ${SETTABLE_VPORT}`).action(
  async (n: string, pairs: string[]) => {
    const changed = await body<VportView>(
      client().api.v1.vports[":id"].$patch({ ...byId(n), json: parsePairs(pairs) }),
    );
    show(changed, () => vportTable([changed]));
  },
);
modeCommand(
  vport,
  "who drives the guest's data path; passthrough: it is allotted a VF; emulated: it gives it back",
  "vports",
);
vport.command("remove <n>").description("take a vport away").action(async (n: string) => {
  const gone = await body<VportView>(client().api.v1.vports[":id"].$delete(byId(n)));
  show(gone, () => `vport ${gone.id} is gone`);
});

pluginCommands(program.command("plugin").description("plugins that drive VFs from inside their guests"), {
  peer: vfService,
  show,
});

tokenCommands(program.command("token").description("who may ask this fabric's APIs what"), { fabric, show });

program.command("filters").description("the address filter table").action(async () => {
  const filters = await body<Parameters<typeof filterTable>[0]>(client().api.v1.filters.$get());
  show(filters, () => filterTable(filters));
});

program.command("nic").description("the NIC: mode, link, engine").action(async () => {
  const nic = await body<Record<string, unknown>>(client().api.v1.nic.$get());
  show(nic, () => JSON.stringify(nic, null, 2));
});

try {
  await program.parseAsync();
} catch (error) {
  console.error(`fabric: ${oneLine(error)}`);
  Deno.exit(1);
}
