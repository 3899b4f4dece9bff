/** Processes of one service that start at the same moment: one of them works, and all others find it. */
import { assertEquals } from "@std/assert";
import { Reactor, UnixListener } from "../../shared/os/mod.ts";

const AT_ONCE = 6;
const FOLLOWER = new URL("../../shared/standby/mod.ts", import.meta.url);
const OS = new URL("../../shared/os/mod.ts", import.meta.url);
/** Waits for the moment, claims the path, says what came of it, and stays until its input ends. */
const CODE = `
  import { claim } from "${FOLLOWER}";
  import { Reactor } from "${OS}";
  const [path, at] = Deno.args;
  const reactor = new Reactor();
  while (Date.now() < Number(at));
  const { active } = claim(path, reactor);
  console.log(active ? "stands by" : "works");
  await Deno.stdin.read(new Uint8Array(1));
  Deno.exit(0);
`;

Deno.test("of processes that start at once, where dead ones have left their place, one works", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const path = `${dir}/standby.sock`;
  const script = `${dir}/claim.ts`;
  await Deno.writeTextFile(script, CODE);
  // The place of one that has died: a file that nobody listens at.
  const reactor = new Reactor();
  const dead = UnixListener.listen(`${dir}/dead.sock`, "seqpacket", reactor);
  await Deno.rename(`${dir}/dead.sock`, path);
  dead[Symbol.dispose]();
  await reactor.close();
  const at = String(Date.now() + 2000);
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const children = Array.from({ length: AT_ONCE }, () =>
    new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--quiet", "--config", config, script, path, at],
      stdin: "piped",
      stdout: "piped",
    }).spawn());
  try {
    const said = await Promise.all(children.map(async ({ stdout }) => {
      const { value } = await stdout.getReader().read();
      return new TextDecoder().decode(value).trim();
    }));
    assertEquals(said.sort(), [...Array(AT_ONCE - 1).fill("stands by"), "works"]);
  } finally {
    await Promise.all(children.map(async ({ stdin, status }) => {
      await stdin.close();
      await status;
    }));
    await Deno.remove(dir, { recursive: true });
  }
});
