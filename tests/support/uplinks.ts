/** Uplinks of a test's fabric, asked of its NIC, and traffic through them. */
import { assert, assertEquals } from "@std/assert";
import type { UplinkSpec, UplinkState } from "../../shared/api/mod.ts";
import type { TestFabric } from "./fabric.ts";
import { type Answer, ask, must } from "./guests.ts";
import type { NetNamespace } from "./net_namespace.ts";
import { TestProcess } from "./process.ts";
import type { UmlGuest } from "./uml.ts";

/** Asks the NIC for an uplink of a pool. */
export function putUplink(fabric: TestFabric, spec: UplinkSpec, pool = "uplink", query = ""): Promise<Answer> {
  return ask(`${fabric.url("nic")}/api/v1/uplinks/${pool}${query}`, "PUT", spec);
}

/** Puts an uplink behind a pool. */
export async function setUplink(fabric: TestFabric, spec: UplinkSpec, pool = "uplink"): Promise<UplinkState> {
  const { status, body } = await putUplink(fabric, spec, pool);
  assertEquals(status, 200, JSON.stringify(body));
  return body;
}

/** The state of a pool's uplink; `undefined`: it has none. */
export async function uplinkOf(fabric: TestFabric, pool = "uplink"): Promise<UplinkState> {
  return (await must(`${fabric.url("nic")}/api/v1/state`)).uplinks[pool];
}

/** Has a guest send to a server in a namespace, and that one to the guest. */
export async function passTcp(guest: UmlGuest, outside: NetNamespace, address: string): Promise<void> {
  await using server = new TestProcess("iperf3 -s", "ip", [
    ...["netns", "exec", outside.name, "iperf3", "-s", "--forceflush"],
  ]);
  await server.expect(/listening/);
  for (const way of ["", "-R"]) {
    const { end } = JSON.parse(await guest.check(`iperf3 -c ${address} -t 2 -J ${way}`, 60_000));
    assert(end.sum_received.bytes > 1e6, JSON.stringify(end.sum_received));
  }
}
