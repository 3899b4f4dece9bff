/** The PF's database when its process is killed at any point: what was answered is kept, and nothing is half kept. */
import { assert, assertEquals } from "@std/assert";
import { Store } from "../../services/pf/store.ts";

const ROUNDS = 20;
/** When it is killed, at most, after it has begun to write. */
const KILLED_MS = 30;

Deno.test("killed at any point, the database has the last setting that was kept, or the one after it, whole", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const path = `${dir}/pf.sqlite`;
  const script = new URL("../support/store_writer.ts", import.meta.url).pathname;
  let kept = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const writer = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "-q", "--no-check", script, path],
      stdout: "piped",
    }).spawn();
    const reader = writer.stdout.pipeThrough(new TextDecoderStream()).getReader();
    let text = (await reader.read()).value ?? "";
    setTimeout(() => writer.kill("SIGKILL"), KILLED_MS * round / ROUNDS);
    for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value;
    assertEquals((await writer.status).signal, "SIGKILL");
    const answered = Number(text.trimEnd().split("\n").at(-1));
    assert(answered > kept);
    using store = new Store(path, "another", 1);
    const rates = new Set(store.load().vfs.map(({ maxTxRate }) => maxTxRate));
    assertEquals([rates.size, store.load().vfs.length], [1, 8]);
    [kept = 0] = [...rates];
    assert(kept === answered || kept === answered + 1, `answered ${answered}, kept ${kept}`);
  }
  await Deno.remove(dir, { recursive: true });
});
