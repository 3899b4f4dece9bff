/**
 * What TCP between two guests gets out of their interfaces: Linux guests (User-Mode Linux) on VFs with all offloads, on
 * VFs without offloads, and on TAPs of a Linux bridge with User-Mode Linux's own driver, which has offloads too. The pairs
 * of guests take turns. Writes are of a MiB: small ones measure system calls, which are dear in these guests.
 */
import { TestFabric } from "../support/fabric.ts";
import { FeatureMask } from "../support/feature_mask.ts";
import { TapBridge } from "../support/tap_bridge.ts";
import { UmlGuest } from "../support/uml.ts";
import { type Judged, judgedTable } from "./judged.ts";
import { median } from "./stats.ts";

/** What one pair of guests reached, a sample each round. */
export interface TcpResult {
  what: string;
  gbitPerS: number[];
  /** TCP segments that were sent again, in all samples together. */
  retransmissions: number;
}

const SECONDS = 5;
/** Not counted: TCP finds out what the way bears. */
const WARM_UP_SECONDS = 1;
const MEMORY = "256M";
const VFS = "VFs, offloads";
const VFS_PLAIN = "VFs, no offloads";
const BRIDGE = "TAP and bridge";

/** Two guests of which the first sends to the second. */
interface Pair {
  what: string;
  sender: UmlGuest;
  address: string;
}

async function pair(
  what: string,
  subnet: number,
  boot: (i: number) => Promise<UmlGuest>,
): Promise<Pair & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const [sender, receiver] = [stack.use(await boot(0)), stack.use(await boot(1))];
  await sender.address(`10.0.${subnet}.1/24`);
  await receiver.address(`10.0.${subnet}.2/24`);
  const address = `10.0.${subnet}.2`;
  await sender.untilReaches(address);
  await receiver.check("iperf3 -s -D >/dev/null 2>&1");
  await receiver.check("for i in $(seq 50); do ss -ltn | grep -q :5201 && exit 0; sleep 0.1; done; exit 1");
  const kept = stack.move();
  return { what, sender, address, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

/** One run of iperf3. */
async function sample({ sender, address }: Pair): Promise<{ gbitPerS: number; retransmissions: number }> {
  const command = `iperf3 -c ${address} -l 1M -t ${SECONDS} -O ${WARM_UP_SECONDS} -J`;
  const { end } = JSON.parse(await sender.check(command, 60_000));
  return { gbitPerS: end.sum_received.bits_per_second / 1e9, retransmissions: end.sum_sent.retransmits };
}

/** All pairs, taking turns `rounds` times. */
export async function tcp(rounds: number): Promise<TcpResult[]> {
  await using fabric = await TestFabric.start(4);
  await using masks = new AsyncDisposableStack();
  const plain = [2, 3].map((vf) => masks.use(new FeatureMask(fabric.vf(vf).socket, ["csum"])).socket);
  await using bridge = await TapBridge.create(2);
  const { namespace } = bridge;
  await using offloading = await pair(VFS, 0, (i) => UmlGuest.boot(fabric.vf(i).socket, { memory: MEMORY }));
  await using without = await pair(VFS_PLAIN, 1, (i) => UmlGuest.boot(plain[i] ?? "", { memory: MEMORY }));
  await using bridged = await pair(BRIDGE, 2, (i) => {
    return UmlGuest.bootOnTap({ namespace, tap: `tap${i}`, mac: `02:66:00:00:01:0${i}` }, { memory: MEMORY });
  });
  const pairs = [offloading, without, bridged];
  const results = pairs.map(({ what }): TcpResult => ({ what, gbitPerS: [], retransmissions: 0 }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, one] of pairs.entries()) {
      const { gbitPerS, retransmissions } = await sample(one);
      const result = results[i] as TcpResult;
      result.gbitPerS.push(gbitPerS);
      result.retransmissions += retransmissions;
      console.error(`${one.what}: ${gbitPerS.toFixed(2)} Gbit/s, ${retransmissions} retransmissions`);
    }
  }
  return results;
}

/** The pair with offloads beside each of the others. */
export function tcpTable(results: readonly TcpResult[]): string {
  const of = (what: string) => results.find((result) => result.what === what) as TcpResult;
  const row = (what: string, against: string, atLeast: number): Judged => {
    const ours = of(what);
    const theirs = of(against);
    return {
      ...{ what, against, unit: "Gbit/s", goal: { atLeast } },
      ...{ ours: median(ours.gbitPerS), theirs: median(theirs.gbitPerS) },
      note: `retransmissions ${ours.retransmissions} and ${theirs.retransmissions}`,
    };
  };
  return judgedTable("TCP BETWEEN TWO GUESTS ON VFS", [
    row(VFS, BRIDGE, 1.2),
    row(VFS, VFS_PLAIN, 4),
  ]);
}
