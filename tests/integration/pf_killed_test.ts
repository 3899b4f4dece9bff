/** The PF's database when its process is killed at any point: what was answered is kept, and nothing is half kept. */
import { assert, assertEquals } from "@std/assert";
import { until } from "../support/wait.ts";
import { Store } from "../../services/pf/store.ts";

const ROUNDS = Number(Deno.env.get("DATABASE_KILLS") ?? 20);
/** When it is killed, at most, after it has begun to write. */
const KILLED_MS = 30;
const FREEZES = 200;
/** So many that a setting is several pages of the database. */
const VFS = 64;

/** A process that writes settings, one after the other, and says the number of each once it is kept. */
class Writer {
  readonly process: Deno.ChildProcess;
  readonly #ended: Promise<void>;
  #text = "";

  constructor(path: string) {
    const script = new URL("../support/store_writer.ts", import.meta.url).pathname;
    this.process = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "-q", "--no-check", script, path, String(VFS)],
      stdout: "piped",
    }).spawn();
    this.#ended = this.#read();
  }

  async #read(): Promise<void> {
    for await (const text of this.process.stdout.pipeThrough(new TextDecoderStream())) this.#text += text;
  }

  /** The last setting of which it has said that it is kept, as far as it was heard. */
  get answered(): number {
    return Number(this.#text.slice(0, this.#text.lastIndexOf("\n")).split("\n").at(-1));
  }

  /** Stops all of its threads where they are: what is on the disk is what a kill would leave. */
  async freeze(): Promise<void> {
    this.process.kill("SIGSTOP");
    const tasks = `/proc/${this.process.pid}/task`;
    const isStopped = (task: string) => {
      try {
        const stat = Deno.readTextFileSync(`${tasks}/${task}/stat`);
        return stat[stat.lastIndexOf(")") + 2] === "T";
      } catch (error) {
        // A thread that was ending has ended.
        if (error instanceof Deno.errors.NotFound) return true;
        throw error;
      }
    };
    await until("it to stand still", () => [...Deno.readDirSync(tasks)].every(({ name }) => isStopped(name)), 5000, 0);
  }

  async kill(): Promise<void> {
    this.process.kill("SIGKILL");
    assertEquals((await this.process.status).signal, "SIGKILL");
    await this.#ended;
  }
}

/** Where the last transaction of a write-ahead log begins and ends (SQLite's file format, section 4.1). */
function lastTransaction(log: Uint8Array): { start: number; end: number; isCommitted: boolean } {
  const view = new DataView(log.buffer, log.byteOffset, log.length);
  const frameBytes = 24 + view.getUint32(8);
  const salt = view.getBigUint64(16);
  let [start, end, isCommitted] = [32, 32, true];
  while (end + frameBytes <= log.length && view.getBigUint64(end + 8) === salt) {
    if (isCommitted) start = end;
    isCommitted = view.getUint32(end + 4) > 0;
    end += frameBytes;
  }
  return { start, end, isCommitted };
}

/** The setting that a database has; it is whole, or this throws. */
function settingIn(path: string): number {
  using store = new Store(path, "another", 1);
  const { vfs } = store.load();
  const rates = new Set(vfs.map(({ maxTxRate }) => maxTxRate));
  assertEquals([rates.size, vfs.length], [1, VFS]);
  const [rate = 0] = rates;
  return rate;
}

Deno.test("killed at any point, the database has the last setting that was kept, or the one after it, whole", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const path = `${dir}/pf.sqlite`;
  let kept = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const writer = new Writer(path);
    await until("it to write", () => writer.answered > 0);
    await new Promise((resolve) => setTimeout(resolve, KILLED_MS * round / ROUNDS));
    await writer.kill();
    assert(writer.answered > kept);
    kept = settingIn(path);
    assert(kept === writer.answered || kept === writer.answered + 1, `answered ${writer.answered}, kept ${kept}`);
  }
  await Deno.remove(dir, { recursive: true });
});

Deno.test("frozen 200 times while it writes, the disk has a whole setting, and the one before it where the log is cut", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const writer = new Writer(`${dir}/pf.sqlite`);
  let [before, cut] = [0, 0];
  try {
    await until("it to write", () => writer.answered > 0);
    for (let freeze = 0; freeze < FREEZES; freeze++) {
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
      await writer.freeze();
      const [whole, broken] = [`${dir}/${freeze}`, `${dir}/${freeze}-cut`];
      const files = [...Deno.readDirSync(dir)].filter(({ isFile }) => isFile).map(({ name }) => name);
      for (const copy of [whole, broken]) {
        await Deno.mkdir(copy);
        for (const name of files) await Deno.copyFile(`${dir}/${name}`, `${copy}/${name}`);
      }
      // Everything that it had answered before it stood still is there.
      const answered = writer.answered;
      writer.process.kill("SIGCONT");
      const kept = settingIn(`${whole}/pf.sqlite`);
      assert(kept >= answered && kept >= before, `answered ${answered}, kept ${kept}, ${before} before`);
      before = kept;
      // A freeze seldom meets a write that is not finished: this is what any such write leaves.
      const { start, end, isCommitted } = lastTransaction(await Deno.readFile(`${broken}/pf.sqlite-wal`));
      if (end > start && isCommitted) {
        await Deno.truncate(`${broken}/pf.sqlite-wal`, start + Math.floor(Math.random() * (end - start)));
        assertEquals(settingIn(`${broken}/pf.sqlite`), kept - 1);
        cut++;
      }
      for (const copy of [whole, broken]) await Deno.remove(copy, { recursive: true });
    }
  } finally {
    await writer.kill();
    await Deno.remove(dir, { recursive: true });
  }
  assert(cut > 0, "no freeze has met a log with a transaction");
});
