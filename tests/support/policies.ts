/** One table of policies for every kind of guest and every mode: what each stops, and which counter says so. */
import { assert, assertEquals } from "@std/assert";
import type { TestFabric } from "./fabric.ts";
import { until } from "./wait.ts";

/**
 * Changes VF 0's and VF 1's policy while VF 0 sends more than 100 Mbit/s to VF 1, from its own address to VF 1's, and
 * neither hears of a change: each must be in force in the 100 ms after its answer, and be counted.
 */
export async function checkPolicies(fabric: TestFabric): Promise<void> {
  const [a, b] = [fabric.vf(0), fabric.vf(1)];
  // What VF 1 has no buffer for has passed the switch all the same.
  const delivered = async () => {
    const { rx_frames = 0, rx_no_buffer = 0 } = await fabric.counters(1);
    return rx_frames + rx_no_buffer;
  };
  /** Whether frames arrive in a window that begins when the PATCH is answered. */
  const flows = async () => {
    const before = await delivered();
    await new Promise((resolve) => setTimeout(resolve, 100));
    return (await delivered()) > before;
  };
  /** Frames arrive again. On a busy machine a sender may have no CPU for longer than such a window. */
  const flowAgain = async (when: string) => {
    const before = await delivered();
    await until(`frames on VF 1 ${when}`, async () => (await delivered()) > before);
  };
  await until("frames from VF 0 on VF 1", async () => (await delivered()) > 1000);
  const drops: [Record<string, unknown>, Record<string, unknown>, number, string][] = [
    [{ vlan: 7 }, { vlan: 0 }, 0, "tx_no_destination"],
    [{ linkState: "disable" }, { linkState: "auto" }, 0, "tx_link_down"],
    [{ linkState: "disable" }, { linkState: "auto" }, 1, "rx_link_down"],
    [{ mac: "02:77:00:00:00:01" }, { mac: a.mac }, 0, "tx_spoofed"],
    [{ mac: "02:77:00:00:00:02" }, { mac: b.mac }, 1, "tx_no_destination"],
  ];
  for (const [change, back, vf, counter] of drops) {
    await flowAgain(`before ${JSON.stringify(change)}`);
    const counts = async () => (await fabric.counters(counter.startsWith("rx") ? 1 : 0))[counter] ?? 0;
    const before = await counts();
    await fabric.patch(vf, change);
    const settled = await delivered();
    assertEquals(await flows(), false, `after ${JSON.stringify(change)}, ${settled} delivered`);
    await until(`${counter} to count what ${JSON.stringify(change)} stops`, async () => await counts() > before);
    await fabric.patch(vf, back);
  }
  await flowAgain("after the last of them");
  // Spoof check off: the source no longer matters.
  await fabric.patch(0, { mac: "02:77:00:00:00:01", spoofCheck: false });
  await flowAgain("without spoof check");
  await fabric.patch(0, { maxTxRate: 100 });
  // How much of it goes depends on who has the CPU; that the rate is kept exactly is a unit test's, with a clock of its own.
  const from = await fabric.counters(0);
  const at = performance.now();
  await until("a second of limited traffic", () => performance.now() - at > 1000);
  const to = await fabric.counters(0);
  const mbps = ((to.tx_bytes ?? 0) - (from.tx_bytes ?? 0)) * 8 / 1e3 / (performance.now() - at);
  assert(mbps > 0 && mbps < 110, `100 Mbit/s were allowed, ${mbps.toFixed(1)} went`);
}
