/** One Deno everywhere: for people, for systemd, and in the image. */
import { assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url);
const read = (path: string) => Deno.readTextFileSync(new URL(path, ROOT));

function texts(folder: string): string[] {
  return [...Deno.readDirSync(new URL(folder, ROOT))].flatMap(({ name, isDirectory }) =>
    isDirectory ? texts(`${folder}${name}/`) : [`${folder}${name}`]
  );
}

Deno.test("every command names the same Deno", () => {
  const top = ["README.md", "CONTRIBUTING.md", "Dockerfile", ".ci/run"];
  const files = [...top, ...["docs/", "services/", "shared/", "systemd/"].flatMap(texts)];
  const named = files.flatMap((path) => {
    // A benchmark says which Deno it was taken with.
    if (path === "docs/benchmarks.md") return [];
    return [...read(path).matchAll(/deno[@:]v?(\d+\.\d+\.\d+)/g)].map(([, version]) => `${path}: ${version}`);
  });
  const [first] = [...read(".ci/run").matchAll(/deno@(\S+)/g)].map(([, version]) => version);
  assertEquals(named.filter((one) => !one.endsWith(`: ${first}`)), []);
  assertEquals(named.some((one) => one.startsWith("Dockerfile")), true);
});
