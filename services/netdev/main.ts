/** The netdev service: a VF as an interface of the host, of a network namespace, or of a container. */
import ipaddr from "ipaddr.js";
import { Command, InvalidArgumentError } from "commander";
import { runService, UplinkSpec, wholeNumber } from "../../shared/api/mod.ts";
import { namespacePath, Reactor } from "../../shared/os/mod.ts";
import { Netdev } from "./netdev.ts";

/** Checks a field as the uplinks' TAPs have it. */
function field(name: "name" | "address"): (text: string) => string {
  return (text) => {
    const spec = UplinkSpec.safeParse({ kind: "tap", name: "rf0", [name]: text });
    if (!spec.success) throw new InvalidArgumentError(`It ${spec.error.issues[0]?.message}.`);
    return text;
  };
}

const options = new Command("netdev")
  .description("A VF as an interface of the host, of a network namespace, or of a container")
  .requiredOption("--socket <path>", "the NIC's device socket, for the hypervisor's own services")
  .requiredOption("--vf <n>", "the VF", wholeNumber(0, 255))
  .requiredOption("--name <name>", "the interface: made if it is not there", field("name"))
  .option("--netns <name|pid>", "the network namespace it is in: a name of `ip netns`, or a process's number")
  .option("--address <a/n>", "an address for it, such as 10.0.0.5/24", field("address"))
  .parse()
  .opts<{ socket: string; vf: number; name: string; netns?: string; address?: string }>();

function addressOf(text: string): { bytes: number[]; bits: number; text: string } {
  const [address, bits] = ipaddr.parseCIDR(text);
  return { bytes: address.toByteArray(), bits, text };
}

await runService("netdev", async () => {
  const { socket, vf, name, netns, address } = options;
  const reactor = new Reactor();
  const netdev = await Netdev.start({
    ...{ deviceSocket: socket, reactor, vf, name },
    namespace: netns === undefined ? undefined : namespacePath(netns),
    address: address === undefined ? undefined : addressOf(address),
  });
  return {
    info: { vf, name, ...(netns === undefined ? {} : { netns }), ...netdev.link },
    ended: netdev.ended,
    async close() {
      await netdev.close();
      await reactor.close();
    },
  };
});
