/** Writes one setting after the other into a PF's database and says each once it is kept, until it is killed. */
import { Store } from "../../services/pf/store.ts";

const [path = "", vfs = ""] = Deno.args;
using store = new Store(path, "test", Number(vfs));
const settings = store.load();
const encoder = new TextEncoder();
for (let n = (settings.vfs[0]?.maxTxRate ?? 0) + 1;; n++) {
  const next = settings.vfs.map((vf) => ({ ...vf, maxTxRate: n }));
  await store.save({ ...settings, vfs: next }, () => Promise.resolve());
  Deno.stdout.writeSync(encoder.encode(`${n}\n`));
}
