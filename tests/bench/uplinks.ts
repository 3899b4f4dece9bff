/**
 * TCP to the world: what iperf3 reaches between a guest and a network namespace through a TAP, and between VFs that are
 * interfaces of namespaces (`fabric netdev`), beside two namespaces on a Linux bridge, and beside the same guest with
 * User-Mode Linux's own driver on a TAP of that bridge. All take turns, each way.
 */
import { TestFabric } from "../support/fabric.ts";
import { run } from "../support/judges.ts";
import { Bridge, NetNamespace, uniqueName } from "../support/net_namespace.ts";
import { attachNetdev } from "../support/netdev.ts";
import { TestProcess } from "../support/process.ts";
import { UmlGuest } from "../support/uml.ts";
import { setUplink } from "../support/uplinks.ts";
import { until } from "../support/wait.ts";
import { type Judged, judgedTable } from "./judged.ts";
import { median } from "./stats.ts";

/** Name of the part, for `--only`. */
export const UPLINK_TCP_NAME = "uplinks tcp";

const SECONDS = 4;
/** Not counted: TCP finds out what the way bears. */
const WARM_UP_SECONDS = 1;
const DEADLINE_MS = 60_000;
const MEMORY = "256M";
const WAYS = { "out": "", "in": "-R" } as const;
type Way = keyof typeof WAYS;

/** What stands in for the fabric, and what is held against it. */
const BRIDGED = "veth and bridge";
const OWN_TAP = "UML's own driver";
const AGAINST: Record<string, { peer: string; atLeast?: number }[]> = {
  "guest, tap: to a namespace": [{ peer: BRIDGED, atLeast: 0.9 }, { peer: OWN_TAP }],
  "netdev, tap: to a namespace": [{ peer: BRIDGED }],
  "netdev to netdev": [{ peer: BRIDGED }],
  "guest to netdev": [{ peer: BRIDGED }, { peer: OWN_TAP }],
};

/** Who sends to whom. */
interface Line {
  what: string;
  /** Runs iperf3 where the line begins. */
  client(args: string): Promise<string>;
  server: string;
}

/** What a line reached, a sample each round and way; TCP segments that were sent again, in all samples together. */
export interface UplinkTcpResult {
  what: string;
  gbitPerS: Record<Way, number[]>;
  retransmissions: number;
}

const inGuest = (guest: UmlGuest) => (args: string) => guest.check(`iperf3 ${args}`, DEADLINE_MS);
const inNamespace = (namespace: NetNamespace) => (args: string) => namespace.run("iperf3", ...args.split(" "));

async function serve(stack: AsyncDisposableStack, { name }: NetNamespace): Promise<void> {
  const server = new TestProcess("iperf3 -s", "ip", ["netns", "exec", name, "iperf3", "-s", "--forceflush"]);
  await stack.use(server).expect(/listening/);
}

/** Two namespaces on a bridge, and a guest on a TAP of it. */
async function withoutFabric(stack: AsyncDisposableStack): Promise<Line[]> {
  const bridge = stack.use(await Bridge.make());
  const from = stack.use(await NetNamespace.onBridge(bridge.name, "10.1.0.1/24"));
  const to = stack.use(await NetNamespace.onBridge(bridge.name, "10.1.0.2/24"));
  const tap = uniqueName("rft");
  await run("ip", ["tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr"]);
  stack.defer(async () => void await run("ip", ["link", "del", tap]));
  await run("ip", ["link", "set", tap, "master", bridge.name, "up"]);
  const guest = stack.use(await UmlGuest.bootOnTap({ tap, mac: "02:66:00:00:01:03" }, { memory: MEMORY }));
  await guest.address("10.1.0.3/24");
  await guest.untilReaches("10.1.0.2");
  await serve(stack, to);
  return [
    { what: BRIDGED, client: inNamespace(from), server: "10.1.0.2" },
    { what: OWN_TAP, client: inGuest(guest), server: "10.1.0.2" },
  ];
}

/** A guest and two namespaces on VFs, and a TAP on a bridge with another namespace as their uplink. */
async function throughFabric(stack: AsyncDisposableStack): Promise<Line[]> {
  const fabric = stack.use(await TestFabric.start(3));
  const bridge = stack.use(await Bridge.make());
  const outside = stack.use(await NetNamespace.onBridge(bridge.name, "10.2.0.9/24"));
  const tap = uniqueName("rft");
  await setUplink(fabric, { kind: "tap", name: tap });
  await run("ip", ["link", "set", tap, "master", bridge.name]);
  const [a, b] = [stack.use(await NetNamespace.make()), stack.use(await NetNamespace.make())];
  stack.use(await attachNetdev(fabric, 1, a, "10.2.0.1/24"));
  stack.use(await attachNetdev(fabric, 2, b, "10.2.0.2/24"));
  const guest = stack.use(await UmlGuest.boot(fabric.vf(0).socket, { memory: MEMORY }));
  await guest.address("10.2.0.3/24");
  for (const address of ["10.2.0.9", "10.2.0.2"]) {
    await guest.untilReaches(address);
    await until(`${address} to answer`, () => a.reaches(address));
  }
  for (const namespace of [outside, b]) await serve(stack, namespace);
  return [
    { what: "guest, tap: to a namespace", client: inGuest(guest), server: "10.2.0.9" },
    { what: "netdev, tap: to a namespace", client: inNamespace(a), server: "10.2.0.9" },
    { what: "netdev to netdev", client: inNamespace(a), server: "10.2.0.2" },
    { what: "guest to netdev", client: inGuest(guest), server: "10.2.0.2" },
  ];
}

/** All lines in turn, `rounds` times, each way. */
export async function uplinkTcp(rounds: number, report: (line: string) => void): Promise<UplinkTcpResult[]> {
  await using stack = new AsyncDisposableStack();
  const lines = [...await withoutFabric(stack), ...await throughFabric(stack)];
  const results = lines.map(({ what }): UplinkTcpResult => ({
    ...{ what, gbitPerS: { out: [], in: [] }, retransmissions: 0 },
  }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, { what, client, server }] of lines.entries()) {
      for (const [way, option] of Object.entries(WAYS) as [Way, string][]) {
        const args = `-c ${server} -l 1M -t ${SECONDS} -O ${WARM_UP_SECONDS} -J ${option}`.trim();
        const { end } = JSON.parse(await client(args));
        const result = results[i] as UplinkTcpResult;
        const gbitPerS = end.sum_received.bits_per_second / 1e9;
        result.gbitPerS[way].push(gbitPerS);
        result.retransmissions += end.sum_sent.retransmits;
        report(`${what}, ${way}: ${gbitPerS.toFixed(2)} Gbit/s, ${end.sum_sent.retransmits} retransmissions`);
      }
    }
  }
  return results;
}

/** Each line of the fabric beside what is held against it. */
export function uplinkTcpTable(results: readonly UplinkTcpResult[]): string {
  const of = (what: string) => results.find((result) => result.what === what) as UplinkTcpResult;
  const rows = Object.entries(AGAINST).flatMap(([what, peers]) =>
    peers.flatMap(({ peer, atLeast }) =>
      (Object.keys(WAYS) as Way[]).map((way): Judged => ({
        ...{ what: `${what}, ${way}`, against: peer, unit: "Gbit/s" },
        ...{ ours: median(of(what).gbitPerS[way]), theirs: median(of(peer).gbitPerS[way]) },
        ...(atLeast === undefined ? {} : { goal: { atLeast } }),
        note: `retransmissions ${of(what).retransmissions} and ${of(peer).retransmissions}`,
      }))
    )
  );
  return judgedTable("TCP TO THE WORLD, iperf3 -l 1M", rows);
}
