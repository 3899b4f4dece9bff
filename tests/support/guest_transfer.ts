/** What guests of User-Mode Linux are asked about TCP: what their interface offloads, and whether a file arrives whole. */
import { encodeHex } from "@std/encoding/hex";
import type { UmlGuest } from "./uml.ts";
import { until } from "./wait.ts";

/** Where receivers listen. */
export const TRANSFER_PORT = 5000;
const CHUNK_BYTES = 65_536;
/** Prints what comes on the first connection. netcat reads a KiB at a time: system calls are dear in these guests. */
function listener(isV6: boolean): string {
  const [family, any] = isV6
    ? ["PF_INET6", `pack_sockaddr_in6(${TRANSFER_PORT}, IN6ADDR_ANY)`]
    : ["PF_INET", `sockaddr_in(${TRANSFER_PORT}, INADDR_ANY)`];
  return `use Socket qw(:DEFAULT :addrinfo IN6ADDR_ANY pack_sockaddr_in6); socket(S, ${family}, SOCK_STREAM, 0); ` +
    `setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1); bind(S, ${any}); listen(S, 1); accept(C, S); ` +
    `syswrite(STDOUT, $b) while sysread(C, $b, 1 << 20)`;
}

/** A file of bytes that nothing compresses, on the host, whose file system the guests see; its SHA-256 with it. */
export class TestFile implements AsyncDisposable {
  readonly path: string;
  readonly bytes: number;
  readonly sha256: string;

  private constructor(path: string, bytes: number, sha256: string) {
    this.path = path;
    this.bytes = bytes;
    this.sha256 = sha256;
  }

  static async create(bytes: number): Promise<TestFile> {
    const content = new Uint8Array(bytes);
    for (let at = 0; at < bytes; at += CHUNK_BYTES) crypto.getRandomValues(content.subarray(at, at + CHUNK_BYTES));
    const path = await Deno.makeTempFile({ prefix: "ringfabric-file-" });
    await Deno.writeFile(path, content);
    return new TestFile(path, bytes, encodeHex(new Uint8Array(await crypto.subtle.digest("SHA-256", content))));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.path);
  }
}

/** Sends the file by TCP to guest `to`, which has the address `address`; answers the SHA-256 of what arrived. */
export async function transfer(from: UmlGuest, to: UmlGuest, address: string, file: TestFile): Promise<string> {
  const print = `perl -e '${listener(address.includes(":"))}'`;
  await to.check(`rm -f /run/done; (${print} | sha256sum >/run/sum; touch /run/done) >/dev/null 2>&1 &`);
  await until("the receiver to listen", async () => (await to.run(`ss -ltn | grep -q :${TRANSFER_PORT}`)).code === 0);
  await from.check(`cat ${file.path} >/dev/tcp/${address}/${TRANSFER_PORT}`, 120_000);
  await until("the last byte", async () => (await to.run("test -e /run/done")).code === 0, 60_000);
  return (await to.check("cat /run/sum")).split(" ")[0] ?? "";
}

/** What `ethtool -k` says of the guest's interface: each feature, and whether it is on. */
export async function offloadsOf(guest: UmlGuest): Promise<Map<string, boolean>> {
  const lines = (await guest.check("ethtool -k eth0")).split("\n");
  return new Map(lines.flatMap((line) => {
    const [, name, state] = /^\s*([\w-]+): (on|off)/.exec(line) ?? [];
    return name === undefined ? [] : [[name, state === "on"] as const];
  }));
}
