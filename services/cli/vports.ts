/** `fabric vport …`: guests without a VF. */
import type { Command } from "commander";
import { defaultPolicy, type VportView } from "../../shared/api/mod.ts";
import { byId, type Context, examples } from "./context.ts";
import { changeSeveral } from "./several.ts";
import { oneId, parsePairs, SETTABLE_VPORT } from "./values.ts";
import { modeCommand } from "./vfs.ts";
import { vportDetail, vportTable } from "./views.ts";

/** Adds `vport`. */
export function vportCommands(program: Command, context: Context): void {
  const { hardware: _, ...policy } = defaultPolicy("");
  const vport = program.command("vport").description("guests without a VF");
  const body = <T>(answer: Parameters<Context["body"]>[0]) => context.body<T>(answer);
  const all = () => body<VportView[]>(context.client.api.v1.vports.$get());
  const patch = async (n: string, json: Record<string, unknown>) => {
    const changed = await changeSeveral<VportView>(n, {
      kind: "vport",
      list: async () => (await all()).map(({ id }) => id),
      change: (id) => body(context.client.api.v1.vports[":id"].$patch({ ...byId(id), json })),
    });
    context.show(/^\d+$/.test(n) ? changed[0] : changed, () => vportTable(changed));
  };
  examples(vport.command("list").description("all vports"), "vport list").action(async () => {
    const vports = await all();
    context.show(vports, () => vportTable(vports));
  });
  examples(vport.command("show <n>").description("one vport: policy, latency, counters"), "vport show 0").action(
    async (n) => {
      const found = await body<VportView>(context.client.api.v1.vports[":id"].$get(byId(oneId(n))));
      context.show(found, () => vportDetail(found));
    },
  );
  examples(
    vport.command("add [pairs...]").description(`a new vport: ${SETTABLE_VPORT}`),
    "vport add",
    "vport add vlan 100",
  ).action(async (pairs: string[]) => {
    const json = pairs.length === 0 ? {} : parsePairs(pairs);
    const made = await body<VportView>(context.client.api.v1.vports.$post({ json }));
    context.show(made, () => `${vportTable([made])}\n\n${made.socket}`);
  });
  examples(
    vport.command("set <n> <pairs...>").description(`change vports (3, 0,2-3 or all): ${SETTABLE_VPORT}`),
    "vport set 0 max_tx_rate 100",
    "vport set 0 mirror both:vport3",
  ).action((n: string, pairs: string[]) => patch(n, parsePairs(pairs, n)));
  examples(vport.command("reset <n>").description("the policy that vports begin with"), "vport reset 0")
    .action((n: string) => patch(n, { ...policy, mac: null }));
  modeCommand(
    vport,
    context,
    "vports",
    "who drives the guest's data path; passthrough: it is allotted a VF; emulated: it gives it back",
  );
  examples(vport.command("remove <n>").description("take a vport away"), "vport remove 0").action(async (n: string) => {
    const gone = await body<VportView>(context.client.api.v1.vports[":id"].$delete(byId(oneId(n))));
    context.show(gone, () => `vport ${gone.id} is gone`);
  });
}
