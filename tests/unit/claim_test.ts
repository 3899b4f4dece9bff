/** Processes of one service that start at the same moment: one of them works, and all others find it. */
import { assertEquals } from "@std/assert";
import { Reactor, UnixListener } from "../../shared/os/mod.ts";

const AT_ONCE = 6;
const FOLLOWER = new URL("../../shared/standby/mod.ts", import.meta.url);
const OS = new URL("../../shared/os/mod.ts", import.meta.url);
/** Says that it is there, claims the path when it is told to, says what came of it, and stays until its input ends. */
const CODE = `
  import { claim } from "${FOLLOWER}";
  import { Reactor } from "${OS}";
  const reactor = new Reactor();
  console.log("there");
  Deno.stdin.readSync(new Uint8Array(1));
  const { active } = claim(Deno.args[0], reactor);
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
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const children = Array.from({ length: AT_ONCE }, () =>
    new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", "--quiet", "--config", config, script, path],
      stdin: "piped",
      stdout: "piped",
    }).spawn());
  try {
    const readers = children.map(({ stdout }) => stdout.getReader());
    const heard = () =>
      Promise.all(readers.map(async (reader) => new TextDecoder().decode((await reader.read()).value).trim()));
    assertEquals(await heard(), Array(AT_ONCE).fill("there"));
    const writers = children.map(({ stdin }) => stdin.getWriter());
    await Promise.all(writers.map((writer) => writer.write(Uint8Array.of(0))));
    for (const writer of writers) writer.releaseLock();
    const said = await heard();
    assertEquals(said.sort(), [...Array(AT_ONCE - 1).fill("stands by"), "works"]);
  } finally {
    await Promise.all(children.map(async ({ stdin, status }) => {
      await stdin.close();
      await status;
    }));
    await Deno.remove(dir, { recursive: true });
  }
});
