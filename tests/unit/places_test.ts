/** Few places for many: whoever has a VF's token takes none of those that the operator needs, and gives back what they had. */
import { assertEquals, assertMatch } from "@std/assert";
import { Access, hashToken } from "../../shared/api/mod.ts";
import { pfApi } from "../../services/pf/api.ts";
import { TestPf } from "../support/test_pf.ts";

const VFS = 20;

/** A PF that asks for tokens: `ask` as whose VF it is, or as the operator. */
async function withTokens(test: (ask: (who: number | "operator", path: string) => Promise<Response>) => Promise<void>) {
  await using pf = await TestPf.start(VFS);
  const file = await Deno.makeTempFile();
  const entry = (name: string, role: object) => ({ name, sha256: hashToken(name), ...role });
  const vfs = Array.from({ length: VFS }, (_, vf) => entry(`${vf}`, { role: "vf", vf }));
  await Deno.writeTextFile(file, JSON.stringify({ tokens: [...vfs, entry("operator", { role: "operator" })] }));
  const app = pfApi(pf.fabric, new Access({ file }));
  try {
    await test(async (who, path) =>
      await app.request(`/api/v1/${path}`, { headers: { authorization: `Bearer ${who}` } })
    );
  } finally {
    await Deno.remove(file);
  }
}

const [PER_VF, ALL_VFS, ALL] = [8, 96, 128];

Deno.test("a VF's token has 8 listeners, all of them together 96, and the operator the rest of 128", async () => {
  await withTokens(async (ask) => {
    const open: Response[] = [];
    const take = async (who: number | "operator") => {
      const answer = await ask(who, typeof who === "number" ? `vfs/${who}/live` : "live");
      if (answer.status === 200) open.push(answer);
      return answer.status === 200 ? "taken" : `${answer.status}: ${(await answer.json()).detail}`;
    };
    for (let vf = 0; vf < ALL_VFS / PER_VF; vf++) {
      for (let i = 0; i < PER_VF; i++) assertEquals(await take(vf), "taken");
    }
    assertMatch(await take(0), /^503.*vf 0 has 8 listeners already: end one first/);
    assertMatch(await take(VFS - 1), /^503.*96 listeners are there already: end one first/);
    for (let i = ALL_VFS; i < ALL; i++) assertEquals(await take("operator"), "taken");
    assertMatch(await take("operator"), /^503.*128 listeners are there already/);
    await open.shift()?.body?.cancel();
    assertEquals(await take(VFS - 1), "taken");
    for (const one of open) await one.body?.cancel();
  });
});
