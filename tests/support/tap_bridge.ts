/**
 * What guests have without a fabric: TAPs on a Linux bridge, in a network namespace of its own that goes with it. The
 * yardstick of the TCP benchmark.
 */
import { run } from "./judges.ts";

let made = 0;

/** A bridge with TAPs that take and give virtio-net headers. */
export class TapBridge implements AsyncDisposable {
  /** The network namespace in which the guests' programs run. */
  readonly namespace: string;
  readonly taps: readonly string[];

  private constructor(namespace: string, taps: readonly string[]) {
    this.namespace = namespace;
    this.taps = taps;
  }

  /** Makes one with `count` TAPs. */
  static async create(count: number, mtu = 1500): Promise<TapBridge> {
    const namespace = `ringfabric-${Deno.pid}-${made++}`;
    const bridge = new TapBridge(namespace, Array.from({ length: count }, (_, i) => `tap${i}`));
    await run("ip", ["netns", "add", namespace]);
    try {
      await bridge.#ip("link", "add", "bridge0", "type", "bridge", "stp_state", "0", "forward_delay", "0");
      for (const tap of bridge.taps) {
        await bridge.#ip("tuntap", "add", "dev", tap, "mode", "tap", "vnet_hdr");
        await bridge.#ip("link", "set", tap, "mtu", String(mtu), "master", "bridge0", "up");
      }
      await bridge.#ip("link", "set", "bridge0", "up");
    } catch (error) {
      await bridge[Symbol.asyncDispose]();
      throw error;
    }
    return bridge;
  }

  #ip(...args: string[]): Promise<string> {
    return run("ip", ["-n", this.namespace, ...args]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run("ip", ["netns", "delete", this.namespace]);
  }
}
