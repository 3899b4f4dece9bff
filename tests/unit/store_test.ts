/** The PF's database where it cannot be written: what was asked is refused, and what was there stays. */
import { assertEquals, assertRejects } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { ApiError } from "../../shared/api/mod.ts";
import { Store } from "../../services/pf/store.ts";

Deno.test("a policy that the disk does not take is refused with the database's name, and nothing has changed", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    const path = `${dir}/pf.sqlite`;
    using store = new Store(path, "seed", 2);
    const before = store.load();
    const next = { ...before, link: "down" } as const;
    let applied = 0;
    const apply = () => Promise.resolve(void applied++);
    {
      using other = new DatabaseSync(path);
      other.exec("BEGIN EXCLUSIVE");
      const error = await assertRejects(() => store.save(next, apply), ApiError, `cannot be written to ${path} (`);
      assertEquals([error.status, error.reason, applied], [503, "not-stored", 0]);
    }
    assertEquals(store.load(), before);
    const refusal = new ApiError(409, "the NIC does not take it");
    assertEquals(await assertRejects(() => store.save(next, () => Promise.reject(refusal))), refusal);
    assertEquals(store.load(), before);
    await store.save(next, apply);
    assertEquals([store.load().link, applied], ["down", 1]);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
