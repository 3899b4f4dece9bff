/** `fabric uplink …`: what of the host is behind the fabric's uplink, the PF's pool, or a VF. */
import { resolve } from "@std/path";
import { type Command, Option } from "commander";
import {
  parseUplinkSpec,
  type PoolName,
  type UplinkSpec,
  type UplinkView,
  type Vf,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { byId, type Context, examples } from "./context.ts";
import { NotUnderstood, oneId } from "./values.ts";
import { uplinkDetail, uplinkTable } from "./nic_views.ts";

/** Which pool is meant: the uplink's if nothing is said. */
interface Which {
  vf?: number;
  pf?: true;
}

/** What `uplink set` takes beside the short form. */
interface SetOptions extends Which {
  address?: string;
  queue?: number;
  record?: string;
  speed?: "paced" | "full";
  loop?: true;
}

const PCAP_OPTIONS = ["record", "speed", "loop"] as const;

/** The pool that the options name. */
function poolOf({ vf, pf }: Which): PoolName {
  if (vf !== undefined && pf) throw new NotUnderstood("--vf and --pf are two pools: say one");
  return vf ?? (pf ? "pf" : "uplink");
}

/** The spec that was typed: a short form, and what it has no place for. */
export function readSpec(text: string, { address, queue, ...pcap }: SetOptions, directory: string): UplinkSpec {
  const { record, speed, loop } = pcap;
  const whole = /^pcap:./.test(text) ? `pcap:${resolve(directory, text.slice("pcap:".length))}` : text;
  let spec: UplinkSpec;
  try {
    spec = text === "pcap" && record !== undefined ? { kind: "pcap" } : parseUplinkSpec(whole);
  } catch (error) {
    throw new NotUnderstood((error as Error).message);
  }
  if (address !== undefined && spec.kind !== "tap") {
    throw new NotUnderstood(`--address is for a TAP: the host's ${spec.kind} keeps the addresses that it has`);
  }
  if (queue !== undefined && spec.kind !== "xdp") throw new NotUnderstood("--queue is for xdp: name its interface");
  const odd = spec.kind === "pcap" ? undefined : PCAP_OPTIONS.find((option) => pcap[option] !== undefined);
  if (odd !== undefined) throw new NotUnderstood(`--${odd} is for pcap: name its file`);
  return {
    ...spec,
    ...(address === undefined ? {} : { address }),
    ...(queue === undefined ? {} : { queue }),
    ...(record === undefined ? {} : { record: resolve(directory, record) }),
    ...(speed === undefined ? {} : { speed }),
    ...(loop === undefined ? {} : { loop }),
  } as UplinkSpec;
}

/** The uplink of one pool, at the PF. */
export class UplinkClient {
  readonly #context: Context;
  readonly #pool: PoolName;

  constructor(context: Context, pool: PoolName) {
    this.#context = context;
    this.#pool = pool;
  }

  get(): Promise<UplinkView> {
    const { nic, pf, vfs } = this.#context.client.api.v1;
    if (typeof this.#pool === "number") return this.#context.body(vfs[":id"].uplink.$get(byId(this.#pool)));
    return this.#context.body((this.#pool === "pf" ? pf : nic).uplink.$get());
  }

  put(json: UplinkSpec): Promise<UplinkView> {
    const { nic, pf, vfs } = this.#context.client.api.v1;
    if (typeof this.#pool === "number") {
      return this.#context.body(vfs[":id"].uplink.$put({ ...byId(this.#pool), json }));
    }
    return this.#context.body((this.#pool === "pf" ? pf : nic).uplink.$put({ json }));
  }
}

/** Adds the options that say which pool is meant. */
function withPool(command: Command): Command {
  return command.option("--vf <n>", "of VF N, not of the whole fabric", oneId)
    .option("--pf", "of the PF's pool, where vports would be");
}

/** Adds `uplink`. */
export function uplinkCommands(program: Command, context: Context): void {
  const uplink = program.command("uplink").description("what of the host is behind the fabric, or behind a VF");
  const put = async (pool: PoolName, spec: UplinkSpec) => {
    const made = await new UplinkClient(context, pool).put(spec);
    context.show(made, () => uplinkDetail(made));
  };

  examples(
    withPool(uplink.command("show", { isDefault: true }).description("what is to be there, and whether it is")),
    "uplink",
    "uplink show --vf 3",
  ).action(async (which: Which) => {
    const found = await new UplinkClient(context, poolOf(which)).get();
    context.show(found, () => uplinkDetail(found));
  });
  examples(uplink.command("list").description("all pools that have something of the host behind them"), "uplink list")
    .action(async () => {
      const vfs = await context.body<Vf[]>(context.client.api.v1.vfs.$get());
      const pools: PoolName[] = ["uplink", "pf", ...vfs.filter((vf) => vf.uplink !== null).map(({ id }) => id)];
      const found = (await Promise.all(pools.map((pool) => new UplinkClient(context, pool).get()))).filter(({ spec }) =>
        spec.kind !== "none"
      );
      context.show(found, () => found.length === 0 ? "there is none" : uplinkTable(found));
    });
  examples(
    withPool(
      uplink.command("set <spec>").description("tap:NAME, packet:IFACE, xdp:IFACE or pcap:FILE (replayed); kept")
        .option("--address <address>", "the host's address on the TAP, such as 10.0.0.254/16")
        .option("--queue <n>", "xdp: the interface's queue", wholeNumber(0, 1023))
        .option("--record <file>", "pcap: where frames that go out are written; `set pcap` alone replays none")
        .addOption(new Option("--speed <how>", "pcap: as it was recorded, or as fast as it goes").choices([
          ...["paced", "full"],
        ]))
        .option("--loop", "pcap: from the beginning again at its end"),
    ),
    "uplink set tap:rf0 --address 10.0.0.254/16",
    "uplink set packet:eth1 --vf 3",
    "uplink set pcap:in.pcap --record out.pcapng",
  ).action((spec: string, options: SetOptions) => put(poolOf(options), readSpec(spec, options, Deno.cwd())));
  examples(
    withPool(uplink.command("none").description("nothing of the host is behind it any more")),
    "uplink none",
    "uplink none --vf 3",
  ).action((which: Which) => put(poolOf(which), { kind: "none" }));
}
