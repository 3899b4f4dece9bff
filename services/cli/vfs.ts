/** `fabric vf …`: virtual functions, and how guests attach to them. */
import { Command, InvalidArgumentError } from "commander";
import {
  type AttachTarget,
  defaultPolicy,
  libvirtInterface,
  type ModeRequest,
  type NicView,
  qemuArguments,
  testpmdArguments,
  uplinkMac,
  type Vf,
  type VfMode,
  type VportView,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { byId, type Context, examples, PREFER } from "./context.ts";
import { changeSeveral } from "./several.ts";
import { NotUnderstood, oneId, parsePairs, SETTABLE, UsageError } from "./values.ts";
import { modeDetail, vfDetail, vfTable } from "./views.ts";

/** Adds `vf` and what is short for it. */
export function vfCommands(program: Command, context: Context): void {
  const vf = program.command("vf").description("virtual functions");
  const all = () => context.body<Vf[]>(context.client.api.v1.vfs.$get());
  const nic = () => context.body<NicView>(context.client.api.v1.nic.$get());
  const patch = async (which: string, json: Record<string, unknown>) => {
    const changed = await changeSeveral<Vf>(which, {
      kind: "vf",
      list: async () => (await all()).map(({ id }) => id),
      change: (id) => {
        context.progress.say(`vf ${id}`);
        return context.body(context.client.api.v1.vfs[":id"].$patch({ ...byId(id), json }));
      },
    });
    // A token for one VF may not look at the NIC; the change is in force all the same.
    const carrier = await nic().then(({ carrier }) => carrier, () => undefined);
    context.show(/^\d+$/.test(which) ? changed[0] : changed, (wide) => vfTable(changed, carrier, wide));
  };

  examples(vf.command("list").description("all VFs"), "vf list", "-o wide vf list").action(async () => {
    const [vfs, { carrier }] = await Promise.all([all(), nic()]);
    context.show(vfs, (wide) => vfTable(vfs, carrier, wide));
  });
  examples(vf.command("show <n>").description("one VF: policy, queues, latency, counters"), "vf show 0").action(
    async (n) => {
      const [found, stats] = await Promise.all([context.getVf(oneId(n)), context.getStats(oneId(n))]);
      const { counters, latency } = stats;
      context.show({ ...found, counters, latency }, () => vfDetail(found, stats));
    },
  );
  examples(
    vf.command("set <n> <pairs...>").description(`change VFs (3, 0,2-3 or all): ${SETTABLE}`),
    "vf set 0 vlan 100 qos 3",
    "vf set 2-3 trust on spoofchk off",
    "vf set all max_tx_rate 1000",
  ).action((n: string, pairs: string[]) => patch(n, parsePairs(pairs, n)));
  examples(vf.command("reset <n>").description("the policy that VFs begin with"), "vf reset 0", "vf reset all")
    .action((n: string) => patch(n, { ...defaultPolicy(""), mac: null }));
  modeCommand(vf, context, "vfs", "who drives a VF; or change it: emulated, passthrough");
  attachCommands(vf, context);
  attachCommands(program, context);
}

interface ModeOptions {
  plugin?: string;
  dataPath?: Exclude<ModeRequest["dataPath"], undefined>;
  force?: boolean;
}

/** Adds `mode`, of VFs or of vports. */
export function modeCommand(parent: Command, context: Context, of: "vfs" | "vports", what: string): void {
  const name = of === "vfs" ? "vf" : "vport";
  examples(
    parent.command("mode <n> [mode]").description(what)
      .option("--plugin <name>", "plugin to inject, such as advanced or advanced@1.0.0")
      .option("--data-path <how>", "with emulated: how frames go, copy, zerocopy or headersplit")
      .option("--force", "with emulated: take the VF back at once, without asking its guest"),
    `${name} mode 0`,
    `${name} mode 0 passthrough --plugin advanced`,
    ...(of === "vfs" ? [`${name} mode 0 emulated --data-path zerocopy`] : []),
    `${name} mode 0 emulated --force`,
  ).action(async (n: string, mode: string | undefined, { plugin, dataPath, force }: ModeOptions) => {
    const route = context.client.api.v1[of][":id"].mode;
    if (mode === undefined && (plugin || dataPath || force)) {
      throw new NotUnderstood("--plugin, --data-path and --force go with a mode to be in");
    }
    const json = {
      mode: mode as ModeRequest["mode"],
      ...(dataPath ? { dataPath } : {}),
      ...(plugin ? { plugin } : {}),
      ...(force ? { force: true } : {}),
    };
    const id = byId(oneId(n));
    const found = mode === undefined
      ? await context.body<VfMode>(route.$get(id))
      : await context.outcome(route.$put({ ...id, json }, PREFER));
    context.show(found, () => modeDetail(found));
  });
}

/** Guest memory as QEMU takes it, such as 512M. */
function memorySize(text: string): string {
  if (!/^[1-9]\d{0,8}[kMGT]?$/i.test(text)) throw new InvalidArgumentError("It is a size such as 512M or 2G.");
  return text;
}

/** Descriptors of a split ring, as testpmd sets one up. */
function queueSize(text: string): number {
  const size = Number(text);
  if (!/^\d+$/.test(text) || size < 2 || size > 32768 || (size & (size - 1)) !== 0) {
    throw new InvalidArgumentError("It is a power of two from 2 to 32768.");
  }
  return size;
}

interface AttachOptions {
  queuePairs: number;
  memory: string;
  kvm: boolean;
  queueSize: number;
}

/** Where a guest attaches: a VF, a vport such as `vport0`, or the uplink's port. Throws if it offers fewer queue pairs. */
async function target(context: Context, n: string, queuePairs: number): Promise<AttachTarget> {
  const found = await lookUp(context, n);
  const { id, queuePairs: offered = queuePairs } = found;
  if (queuePairs > offered) {
    const more = `fabric ${
      typeof id === "number" ? `vf set ${id}` : `vport set ${n.slice(5)}`
    } queue_pairs ${queuePairs}`;
    throw new UsageError(`${n} offers ${offered} queue pairs, not ${queuePairs}: ${more}`);
  }
  return found;
}

async function lookUp(context: Context, n: string): Promise<AttachTarget & { queuePairs?: number }> {
  const { nic, vports } = context.client.api.v1;
  if (n === "uplink") {
    const { pfMac, uplink } = await context.body<NicView>(nic.$get());
    return { id: "uplink", mac: uplinkMac(pfMac), socket: uplink.socket };
  }
  const [, vport] = /^vport(\d{1,4})$/.exec(n) ?? [];
  if (vport === undefined) return await context.getVf(oneId(n));
  const { mac, socket, queuePairs } = await context.body<VportView>(vports[":id"].$get(byId(Number(vport))));
  return { id: `vport${Number(vport)}`, mac, socket, queuePairs };
}

function attachCommands(parent: Command, context: Context): void {
  examples(
    parent.command("qemu <n>").description("QEMU arguments that attach a guest to a VF, vport0, or the uplink's port")
      .option("--memory <size>", "guest memory", memorySize, "512M")
      .option("--queue-pairs <n>", "queue pairs", wholeNumber(1, 16), 1)
      .option("--kvm", "for KVM instead of TCG", false),
    "qemu 0 --kvm --memory 2G",
    "qemu uplink",
  ).action(async (n: string, { memory, kvm, queuePairs }: AttachOptions) => {
    const args = qemuArguments(await target(context, n, queuePairs), { memory, kvm, queuePairs });
    context.show(args, () => args.join(" "));
  });
  examples(
    parent.command("libvirt <n>").description("what a libvirt domain needs to have the VF as its network card")
      .option("--queue-pairs <n>", "queue pairs", wholeNumber(1, 16), 1),
    "libvirt 0 --queue-pairs 4",
  ).action(async (n: string, { queuePairs }: AttachOptions) => {
    const xml = libvirtInterface(await target(context, n, queuePairs), queuePairs);
    context.show({ xml }, () => xml);
  });
  examples(
    parent.command("testpmd <n>").description("testpmd arguments that make a VF a DPDK port")
      .option("--queue-pairs <n>", "queue pairs", wholeNumber(1, 16), 1)
      .option("--queue-size <n>", "descriptors", queueSize, 256),
    "testpmd 0 --queue-size 1024",
  ).action(async (n: string, options: AttachOptions) => {
    const args = testpmdArguments(await target(context, n, options.queuePairs), options);
    context.show(args, () => args.join(" "));
  });
}
