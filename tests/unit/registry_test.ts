/** The registry of plugin images: whose a name is, what happens to files, and uploads at one time. */
import { assertEquals, assertRejects } from "@std/assert";
import { Registry } from "../../services/vf/registry.ts";
import { ApiError } from "../../shared/api/mod.ts";
import { generateKeys, type KeyPairText } from "../../shared/plugin/mod.ts";
import { sign } from "../support/plugins.ts";
import { pluginOf } from "../support/wat.ts";

const [first, second] = await Promise.all([generateKeys(), generateKeys()]);
const trust = { keys: [first.publicKey, second.publicKey] };
const image = (keys: KeyPairText, version: string, name = "mynic", module = pluginOf()) =>
  sign(module, keys, { name, version });

async function refused(what: Promise<unknown>, reason: string): Promise<void> {
  const error = await assertRejects(() => what, ApiError);
  assertEquals((error as ApiError).reason, reason, (error as Error).message);
}

/** A test with a folder for images. */
function registryTest(name: string, fn: (dir: string) => Promise<void>): void {
  Deno.test(name, async () => {
    const dir = await Deno.makeTempDir({ prefix: "ringfabric-registry-" });
    try {
      await fn(dir);
    } finally {
      await Deno.remove(dir, { recursive: true });
    }
  });
}

registryTest("a name is its first vendor's, whatever the version, also when its images have gone", async (dir) => {
  const plugins = `${dir}/plugins`;
  const registry = await Registry.open(plugins, undefined, trust);
  await registry.add(await image(first, "1.0.0"));
  await refused(registry.add(await image(second, "9.0.0")), "name-taken");
  await registry.add(await image(second, "1.0.0", "othernic"));
  await registry.remove("mynic", "1.0.0");
  await refused(registry.add(await image(second, "1.0.1")), "name-taken");
  const successor = await Registry.open(plugins, undefined, trust);
  await refused(successor.add(await image(second, "1.0.1")), "name-taken");
  assertEquals((await successor.add(await image(first, "1.0.1"))).signer, first.publicKey);
  // A name that every object has in JavaScript is a name like any other.
  await successor.add(await image(second, "1.0.0", "constructor"));
});

registryTest("names of the images that come along are nobody else's", async (dir) => {
  await Deno.mkdir(`${dir}/builtin`);
  await Deno.writeFile(`${dir}/builtin/advanced@1.0.0.wasm`, await image(first, "1.0.0", "advanced"));
  const registry = await Registry.open(`${dir}/plugins`, `${dir}/builtin`, trust);
  await refused(registry.add(await image(second, "2.0.0", "advanced")), "name-taken");
  await registry.add(await image(first, "1.0.0", "advanced"));
  await refused(registry.remove("advanced", "1.0.0"), "builtin");
  assertEquals(registry.list.map(({ version }) => version), ["1.0.0"]);
});

registryTest("two different images of one version at one time: one is stored, the other refused", async (dir) => {
  const registry = await Registry.open(dir, undefined, trust);
  const other = pluginOf({ stop: '(func (export "stop") (nop))' });
  const images = [await image(first, "1.0.0"), await image(first, "1.0.0", "mynic", other)];
  const answers = await Promise.allSettled(images.map((one) => registry.add(one)));
  assertEquals(answers.map(({ status }) => status), ["fulfilled", "rejected"]);
  assertEquals((await registry.find("mynic@1.0.0")).image, images[0]);
});

registryTest("an image whose file is damaged or gone is not given out; the same upload puts it back", async (dir) => {
  const registry = await Registry.open(dir, undefined, trust);
  const stored = await image(first, "1.0.0");
  const path = `${dir}/mynic@1.0.0.wasm`;
  const breakages = [() => Deno.remove(path), () => Deno.writeFile(path, stored.slice(0, 100))];
  for (const damage of breakages) {
    await registry.add(stored);
    await damage();
    await assertRejects(() => registry.find("mynic"), ApiError);
    await registry.add(stored);
    assertEquals((await registry.find("mynic")).image, stored);
  }
});

registryTest("names that cannot be read stop the service, with what to do", async (dir) => {
  await Deno.writeTextFile(`${dir}/signers.json`, "{");
  await assertRejects(() => Registry.open(dir, undefined, trust), Error, "restore it");
});

registryTest(
  "an older version is not taken of itself where a newer one was there; whoever names it gets it",
  async (dir) => {
    const registry = await Registry.open(dir, undefined, trust);
    await registry.add(await image(first, "1.0.0"));
    await registry.add(await image(first, "1.10.0"));
    assertEquals((await registry.find("mynic")).view.version, "1.10.0");
    await registry.remove("mynic", "1.10.0");
    await refused(registry.find("mynic"), "older-version");
    const successor = await Registry.open(dir, undefined, trust);
    await refused(successor.find("mynic"), "older-version");
    assertEquals((await successor.find("mynic@1.0.0")).view.version, "1.0.0");
  },
);

registryTest("what a key has signed is good for nothing once the key is not trusted any more", async (dir) => {
  const keys = [first.publicKey];
  const registry = await Registry.open(dir, undefined, {
    get keys() {
      return keys;
    },
  });
  await registry.add(await image(first, "1.0.0"));
  assertEquals((await registry.find("mynic")).view.version, "1.0.0");
  keys.length = 0;
  await assertRejects(() => registry.find("mynic"), ApiError);
  await refused(registry.add(await image(first, "1.0.1")), "unknown-key");
});
