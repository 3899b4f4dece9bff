/** The PF's database where it cannot be written: what was asked is refused, and what was there stays. */
import { assertEquals, assertRejects } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { ApiError } from "../../shared/api/mod.ts";
import { Store } from "../../services/pf/store.ts";

/** As a full disk does, this refuses a change when it is committed. */
const REFUSE = `
  CREATE TABLE empty (link TEXT PRIMARY KEY);
  CREATE TABLE refused (link TEXT REFERENCES empty (link) DEFERRABLE INITIALLY DEFERRED);
  CREATE TRIGGER refuse_new AFTER INSERT ON setting WHEN NEW.value = 'down'
    BEGIN INSERT INTO refused VALUES ('down'); END;
  CREATE TRIGGER refuse_next AFTER UPDATE ON setting WHEN NEW.value = 'down'
    BEGIN INSERT INTO refused VALUES ('down'); END`;

function disturb(path: string, statements: string): void {
  using db = new DatabaseSync(path);
  db.exec(statements);
}

const keep = () => Promise.resolve();

Deno.test("a policy that the disk does not take is refused with the database's name, and nothing has changed", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    const path = `${dir}/pf.sqlite`;
    new Store(path, "seed", 2)[Symbol.dispose]();
    disturb(path, REFUSE);
    const next = (store: Store) => ({ ...store.load(), link: "down" } as const);
    {
      using store = new Store(path, "seed", 2);
      const before = store.load();
      const error = await assertRejects(
        () => store.save(next(store), keep),
        ApiError,
        `cannot be written to ${path} (`,
      );
      assertEquals([error.status, error.reason], [503, "not-stored"]);
      assertEquals(store.load(), before);
    }
    disturb(path, "DROP TRIGGER refuse_new; DROP TRIGGER refuse_next");
    using store = new Store(path, "seed", 2);
    const before = store.load();
    const refusal = new ApiError(409, "the NIC does not take it");
    assertEquals(await assertRejects(() => store.save(next(store), () => Promise.reject(refusal))), refusal);
    assertEquals(store.load(), before);
    await store.save(next(store), keep);
    assertEquals(store.load().link, "down");
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
