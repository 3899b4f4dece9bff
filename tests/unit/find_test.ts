/** Which fabric the command line finds, and which token it sends there; the file of tokens. */
import { assertEquals, assertThrows } from "@std/assert";
import { accessFile, changeTokens, hashToken, readTokens } from "../../shared/api/mod.ts";
import { findFabric, findRunDir, findTarget } from "../../services/cli/find.ts";
import { NotUnderstood, UsageError } from "../../services/cli/values.ts";

const VARIABLES = ["XDG_RUNTIME_DIR", "RINGFABRIC_API", "RINGFABRIC_RUN_DIR", "RINGFABRIC_TOKEN"];
const OWN = "http://127.0.0.1:6666";

/** Calls `test` where a fabric of this user has left its run directory, and nothing is said. */
function withRunDir(test: (runDir: string) => void): void {
  const tmp = Deno.makeTempDirSync();
  const before = VARIABLES.map((name) => [name, Deno.env.get(name)] as const);
  for (const name of VARIABLES) Deno.env.delete(name);
  Deno.env.set("XDG_RUNTIME_DIR", tmp);
  const runDir = `${tmp}/ringfabric`;
  Deno.mkdirSync(runDir, { mode: 0o700 });
  Deno.writeTextFileSync(`${runDir}/fabric.json`, JSON.stringify({ api: OWN }));
  Deno.writeTextFileSync(`${runDir}/token`, "secret\n");
  try {
    test(runDir);
  } finally {
    for (const [name, value] of before) {
      if (value === undefined) Deno.env.delete(name);
      else Deno.env.set(name, value);
    }
    Deno.removeSync(tmp, { recursive: true });
  }
}

Deno.test("a fabric of this user is found by itself, with its token", () => {
  withRunDir((runDir) => {
    assertEquals(findFabric({}), { api: OWN, token: "secret", runDir });
    assertEquals(findFabric({ api: "http://localhost:6666" }).token, "secret", "another name of the same place");
    Deno.env.set("RINGFABRIC_TOKEN", "mine");
    assertEquals(findFabric({}).token, "mine");
    for (const name of VARIABLES.slice(1)) Deno.env.set(name, "");
    assertEquals(findFabric({}), { api: OWN, token: "secret", runDir }, "an empty variable says nothing");
  });
});

Deno.test("its token is sent nowhere else, unless its run directory is named", () => {
  withRunDir((runDir) => {
    const elsewhere = { api: "http://127.0.0.1:7777" };
    assertEquals(findFabric(elsewhere), { ...elsewhere, token: undefined, runDir: undefined });
    assertEquals(findFabric({ api: "http://192.0.2.1:6666" }).token, undefined);
    assertEquals(findFabric({ ...elsewhere, runDir }), { ...elsewhere, token: "secret", runDir });
    assertThrows(() => findFabric({ api: "127.0.0.1" }), UsageError, "it is a URL such as");
    Deno.writeTextFileSync(`${runDir}/fabric.json`, "{");
    assertThrows(() => findFabric({}), UsageError, "start the fabric again");
  });
});

Deno.test("a run directory without a fabric leads to no other fabric; what was said wrong is named", () => {
  withRunDir((runDir) => {
    for (const wrong of [`${runDir}/none`, `${runDir}/fabric.json`]) {
      assertThrows(() => findFabric({ runDir: wrong }), UsageError, `no fabric of yours runs in ${wrong}`);
      assertEquals(findFabric({ runDir: wrong, api: OWN }).api, OWN);
    }
    for (const api of ["ftp://x", "file:///etc/passwd", "localhost:8080"]) {
      assertThrows(() => findFabric({ api }), NotUnderstood, `--api ${api}: it is a URL such as`);
    }
    for (const behind of ["/#token=secret", "?token=secret", "/x?y=secret"]) {
      const { message } = assertThrows(
        () => findFabric({ api: OWN + behind }),
        NotUnderstood,
        "goes into RINGFABRIC_TOKEN",
      );
      assertEquals(message.includes("secret"), false, "the page's address has a token");
    }
    assertThrows(() => findTarget({ to: "http://me:secret@far" }), NotUnderstood, "goes into RINGFABRIC_TO_TOKEN");
    Deno.env.set("RINGFABRIC_API", "x");
    assertThrows(() => findFabric({}), NotUnderstood, "RINGFABRIC_API x: it is a URL such as");
    Deno.env.delete("RINGFABRIC_API");
    for (const token of ["a\nb", "sécret", "two words"]) {
      Deno.env.set("RINGFABRIC_TOKEN", token);
      const { message } = assertThrows(() => findFabric({}), NotUnderstood, "RINGFABRIC_TOKEN is no token");
      assertEquals(message.includes(token), false, "it is a secret all the same");
    }
    assertEquals(findRunDir({}), runDir, "the run directory is known without a token");
  });
});

Deno.test("a directory that others can write to is no fabric of ours: no token goes there", () => {
  withRunDir((runDir) => {
    Deno.chmodSync(runDir, 0o777);
    assertEquals(findFabric({}).token, undefined);
  });
});

Deno.test({
  name: "a directory that another user has made is no fabric of ours: no token goes there",
  ignore: Deno.uid() !== 0,
  fn() {
    withRunDir((runDir) => {
      Deno.chownSync(runDir, 65534, 65534);
      assertEquals(findFabric({}).api, "http://127.0.0.1:8080");
      assertEquals(findFabric({ runDir }).api, OWN, "whoever names it means it");
    });
  },
});

Deno.test("a change of the tokens that no service could read is refused, and changes nothing", () => {
  withRunDir((runDir) => {
    assertEquals(readTokens(runDir), undefined);
    const bob = { name: "bob", role: "read", sha256: hashToken("b") } as const;
    changeTokens(runDir, () => [bob]);
    for (const name of ["", "x".repeat(65), "a\nb"]) {
      assertThrows(() => changeTokens(runDir, (before) => [...before, { ...bob, name }]));
    }
    assertEquals(readTokens(runDir), [bob]);
    assertEquals((Deno.statSync(accessFile(runDir)).mode ?? 0) & 0o777, 0o600);
    changeTokens(runDir, () => []);
    assertEquals(readTokens(runDir), undefined, "an empty file would be somebody's");
  });
});
