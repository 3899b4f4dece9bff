/** Network namespaces of a test: with a bridge on the host's side or without, and gone with the test. */
import { run } from "./judges.ts";

let made = 0;

/** Names of interfaces and namespaces that no other test has; short enough for the kernel. */
export function uniqueName(prefix: string): string {
  return `${prefix}${Deno.pid % 100_000}x${made++}`;
}

/** A network namespace. */
export class NetNamespace implements AsyncDisposable {
  readonly name: string;

  private constructor(name: string) {
    this.name = name;
  }

  static async make(): Promise<NetNamespace> {
    const name = uniqueName("rfns");
    await run("ip", ["netns", "add", name]);
    await run("ip", ["-n", name, "link", "set", "lo", "up"]);
    return new NetNamespace(name);
  }

  /** A namespace with a cable to the host: its eth0, with this address, and interface `outside` of the host. */
  static async wired(outside: string, address: string): Promise<NetNamespace> {
    const namespace = await NetNamespace.make();
    await run("ip", ["link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace.name]);
    await quieten(outside);
    await run("ip", ["link", "set", outside, "up"]);
    await namespace.ip(`address add ${address} dev eth0`);
    await namespace.ip("link set eth0 up");
    return namespace;
  }

  /** A namespace whose eth0, with this address, is on `bridge` of the host. */
  static async onBridge(bridge: string, address: string): Promise<NetNamespace> {
    const outside = uniqueName("rfv");
    const namespace = await NetNamespace.wired(outside, address);
    await run("ip", ["link", "set", outside, "master", bridge]);
    return namespace;
  }

  /** Runs `ip` in it. */
  ip(words: string): Promise<string> {
    return run("ip", ["-n", this.name, ...words.split(" ")]);
  }

  /** Runs a program in it to its end; throws with its words if it fails. */
  run(command: string, ...args: string[]): Promise<string> {
    return run("ip", ["netns", "exec", this.name, command, ...args]);
  }

  /** Whether an address answers a ping. */
  async reaches(address: string): Promise<boolean> {
    return await this.run("ping", "-c", "1", "-W", "1", address).then(() => true, () => false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run("ip", ["netns", "del", this.name]);
  }
}

/** Has the host itself say nothing on an interface. */
async function quieten(name: string): Promise<void> {
  await Deno.writeTextFile(`/proc/sys/net/ipv6/conf/${name}/disable_ipv6`, "1");
}

/** A cable between two interfaces of the host, gone with the test. */
export class Cable implements AsyncDisposable {
  readonly ends = [uniqueName("rfc"), uniqueName("rfc")] as const;

  static async make(): Promise<Cable> {
    const cable = new Cable();
    const [a, b] = cable.ends;
    await run("ip", ["link", "add", a, "type", "veth", "peer", "name", b]);
    for (const end of cable.ends) {
      await quieten(end);
      await run("ip", ["link", "set", end, "up"]);
    }
    return cable;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run("ip", ["link", "del", this.ends[0]]);
  }
}

/** A bridge of the host that is gone with the test. */
export class Bridge implements AsyncDisposable {
  readonly name = uniqueName("rfb");

  static async make(): Promise<Bridge> {
    const bridge = new Bridge();
    await run("ip", ["link", "add", bridge.name, "type", "bridge"]);
    await run("ip", ["link", "set", bridge.name, "up"]);
    return bridge;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run("ip", ["link", "del", this.name]);
  }
}
