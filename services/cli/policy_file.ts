/**
 * `fabric export`, `diff` and `apply`: the whole policy as one YAML file. Applying it twice changes nothing the second
 * time; what the file does not mention stays as it is.
 */
import type { Command } from "commander";
import { parse, stringify } from "yaml";
import { z } from "zod";
import {
  fieldErrors,
  NicPatch,
  type NicView,
  print,
  UplinkRequest,
  type Vf,
  VfPatch,
  VfPolicy,
  VportPatch,
  type VportView,
} from "../../shared/api/mod.ts";
import { type Context, examples, EXIT_TROUBLE } from "./context.ts";
import { UplinkClient } from "./uplinks.ts";
import { shown, UsageError } from "./values.ts";

/** VFs or vports, each once. */
const policies = z.array(
  z.looseObject({
    id: z.int().min(0).max(255),
    // The PF takes it for "the one that it began with", which a second look at the fabric cannot tell from another one.
    mac: z.string("say the address, or leave the field out").optional(),
  }),
).refine((list) => new Set(list.map(({ id }) => id)).size === list.length, "names one of them twice");
const PolicyFile = z.strictObject({
  nic: NicPatch.optional(),
  vfs: policies.optional(),
  vports: policies.optional(),
  uplinks: z.record(z.string().regex(/^(uplink|pf|\d{1,3})$/, "is uplink, pf or the number of a VF"), UplinkRequest)
    .optional(),
});

/** One thing to change: what, and each field as it is and as it is to be. */
interface Change {
  what: string;
  fields: { field: string; is: unknown; wanted: unknown }[];
  make(): Promise<unknown>;
}

const POLICY_FIELDS = Object.keys(VfPolicy.shape);
const NIC_FIELDS = Object.keys(NicPatch.shape);
const pick = (value: Record<string, unknown>, fields: readonly string[]) =>
  Object.fromEntries(fields.filter((field) => field in value).map((field) => [field, value[field]]));
const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

function checked<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const wrong = fieldErrors(result.error).map(({ field, detail }) =>
    `${where}${field === "body" ? "the policy" : field}: ${detail}`
  );
  throw new UsageError(wrong.join("; "));
}

async function readPolicy(path: string): Promise<z.output<typeof PolicyFile>> {
  let text: string;
  try {
    text = path === "-" ? await new Response(Deno.stdin.readable).text() : await Deno.readTextFile(path);
  } catch (error) {
    throw new UsageError(`cannot read ${shown(path)}: ${(error as Error).message.split(":")[0]}`);
  }
  let value: unknown;
  try {
    value = parse(text);
  } catch (error) {
    throw new UsageError(`${path} is not YAML: ${(error as Error).message.split("\n")[0]}`);
  }
  return checked(PolicyFile, value ?? {}, "");
}

/** The fields of `wanted` that are otherwise now. */
function fieldsThatDiffer(now: Record<string, unknown>, wanted: Record<string, unknown>): Change["fields"] {
  return Object.entries(wanted).filter(([field, value]) => !same(now[field], value))
    .map(([field, value]) => ({ field, is: now[field], wanted: value }));
}

/** What is to be done so that the fabric is as the file says. */
async function changesOf(context: Context, path: string): Promise<Change[]> {
  const { client } = context;
  // Somebody may be typing it.
  context.progress.stop();
  const file = await readPolicy(path);
  context.progress.say("compares the file with the fabric");
  const [nic, vfs, vports] = await Promise.all([
    context.body<NicView>(client.api.v1.nic.$get()),
    context.body<Vf[]>(client.api.v1.vfs.$get()),
    context.body<VportView[]>(client.api.v1.vports.$get()),
  ]);
  const changes: Change[] = [];
  const add = (what: string, fields: Change["fields"], make: Change["make"]) => {
    if (fields.length > 0) changes.push({ what, fields, make });
  };
  const wantedOf = (fields: Change["fields"]) => Object.fromEntries(fields.map(({ field, wanted }) => [field, wanted]));
  /** An address that is set is the PF's unless the same change says otherwise, so what the file says goes with it. */
  const policyOf = (fields: Change["fields"], { macFixed }: { macFixed?: boolean | undefined }) => ({
    ...wantedOf(fields),
    ...(macFixed !== undefined && fields.some(({ field }) => field === "mac") ? { macFixed } : {}),
  });
  const nicFields = fieldsThatDiffer(nic, file.nic ?? {});
  add("nic", nicFields, () => context.body(client.api.v1.nic.$patch({ json: wantedOf(nicFields) })));
  for (const { id, ...rest } of file.vfs ?? []) {
    const policy = checked(VfPatch, rest, `vf ${id}: `);
    const fields = fieldsThatDiffer({ ...vfs[id] }, policy);
    const [param, json] = [{ id: String(id) }, policyOf(fields, policy)];
    add(`vf ${id}`, fields, () => context.body(client.api.v1.vfs[":id"].$patch({ param, json })));
  }
  const mirrors: { param: { id: string }; is: string | null; mirror: string | null }[] = [];
  for (const { id, ...rest } of file.vports ?? []) {
    const now = vports.find((vport) => vport.id === id);
    const { mirror = now?.mirror ?? null, ...policy } = checked(VportPatch, rest, `vport ${id}: `);
    const fields = fieldsThatDiffer({ ...now }, policy);
    const param = { id: String(id) };
    if (!now) {
      add(
        `vport ${id}`,
        [{ field: "vport", is: "none", wanted: "new" }, ...fields],
        () => context.body(client.api.v1.vports.$post({ json: { id, ...policy } })),
      );
    } else {
      const json = policyOf(fields, policy);
      add(`vport ${id}`, fields, () => context.body(client.api.v1.vports[":id"].$patch({ param, json })));
    }
    mirrors.push({ param, is: now?.mirror ?? null, mirror });
  }
  // A mirror may name a vport that comes later.
  for (const { param, is, mirror } of mirrors) {
    const patch = () => context.body(client.api.v1.vports[":id"].$patch({ param, json: { mirror } }));
    add(`vport ${param.id}`, fieldsThatDiffer({ mirror: is }, { mirror }), patch);
  }
  for (const [key, wanted] of Object.entries(file.uplinks ?? {})) {
    const uplink = new UplinkClient(context, key === "uplink" || key === "pf" ? key : Number(key));
    // A VF that is yet to come has none.
    const is = /^\d/.test(key) && !vfs[Number(key)] ? { kind: "none" } : (await uplink.get()).spec;
    add(`uplink of ${key}`, fieldsThatDiffer({ spec: is }, { spec: wanted }), () => uplink.put(wanted));
  }
  return changes;
}

function describe(changes: readonly Change[]): string {
  if (changes.length === 0) return "nothing differs";
  return changes.flatMap(({ what, fields }) =>
    fields.map(({ field, is, wanted }) => `${what}: ${field}: ${JSON.stringify(is)} -> ${JSON.stringify(wanted)}`)
  ).join("\n");
}

/** Adds `export`, `diff` and `apply`. */
export function policyFileCommands(program: Command, context: Context): void {
  examples(program.command("export").description("the whole policy, as `apply` takes it"), "export > fabric.yaml")
    .action(
      async () => {
        const { client } = context;
        const [nic, vfs, vports] = await Promise.all([
          context.body<NicView>(client.api.v1.nic.$get()),
          context.body<Vf[]>(client.api.v1.vfs.$get()),
          context.body<VportView[]>(client.api.v1.vports.$get()),
        ]);
        const policy = {
          nic: pick({ ...nic }, NIC_FIELDS),
          vfs: vfs.map((vf) => ({ id: vf.id, ...pick({ ...vf }, POLICY_FIELDS) })),
          vports: vports.map((vport) => ({ id: vport.id, ...pick({ ...vport }, POLICY_FIELDS) })),
          uplinks: Object.fromEntries([
            ["uplink", nic.uplink.spec],
            ["pf", (await new UplinkClient(context, "pf").get()).spec],
            ...vfs.flatMap(({ id, uplink }) => uplink ? [[id, uplink.spec]] : []),
          ]),
        };
        context.progress.stop();
        print(context.output === "json" ? JSON.stringify(policy) : stringify(policy).trimEnd());
      },
    );
  examples(
    program.command("diff").description("what `apply` would change; ends with 1 if that is something")
      .requiredOption("-f, --file <path>", "the policy; - is standard input"),
    "diff -f fabric.yaml",
  ).action(async ({ file }: { file: string }) => {
    context.failureCode = EXIT_TROUBLE;
    const changes = await changesOf(context, file);
    context.show(changes.map(({ what, fields }) => ({ what, fields })), () => describe(changes));
    if (changes.length > 0) Deno.exit(1);
  });
  examples(
    program.command("apply").description("makes the fabric as the file says")
      .requiredOption("-f, --file <path>", "the policy; - is standard input")
      .option("--dry-run", "only say what would change", false),
    "apply -f fabric.yaml",
    "apply -f fabric.yaml --dry-run",
  ).action(async ({ file, dryRun }: { file: string; dryRun: boolean }) => {
    const changes = await changesOf(context, file);
    const made: Change[] = [];
    try {
      for (const change of dryRun ? [] : changes) {
        context.progress.say(`apply: ${change.what} (${made.length + 1} of ${changes.length})`);
        await change.make();
        made.push(change);
      }
    } catch (error) {
      const before = made.length === 0 ? "nothing has changed" : `in force already:\n${describe(made)}`;
      throw new UsageError(`${changes[made.length]?.what}: ${(error as Error).message}; ${before}`);
    }
    context.show(changes.map(({ what, fields }) => ({ what, fields })), () => describe(changes));
  });
}
