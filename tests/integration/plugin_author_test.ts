/** What somebody does who writes a plugin: begins with the template, builds, signs, has it trusted, drives frames with it. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { cli, fabricCli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";
import { checkedStream, TestGuest } from "../support/guests.ts";
import { compilePlugin } from "../support/plugins.ts";

/** A vendor's directory with a key pair. */
class Vendor implements AsyncDisposable {
  readonly dir = Deno.makeTempDirSync({ prefix: "ringfabric-vendor-" });
  readonly keys = `${this.dir}/vendor.json`;

  static async create(): Promise<[Vendor, string]> {
    const vendor = new Vendor();
    const { code, out } = await fabricCli(["plugin", "keygen", vendor.keys]);
    assertEquals(code, 0);
    return [vendor, out.trim()];
  }

  /** Signs `module` as `image`, both in the directory, with other options than the good ones. */
  sign(module: string, image: string, other: Record<string, string> = {}) {
    const good = { key: this.keys, name: "mynic", version: "1.0.0", hardware: "advanced", licence: "MIT" };
    const options = Object.entries({ ...good, ...other }).flatMap(([name, value]) => [`--${name}`, value]);
    return fabricCli(["plugin", "sign", `${this.dir}/${module}`, `${this.dir}/${image}`, ...options]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.dir, { recursive: true });
  }
}

Deno.test("a plugin from the template: built, tested, signed, trusted, uploaded, and frames go through it", async () => {
  const [vendor, publicKey] = await Vendor.create();
  await using _ = vendor;
  const trust = `${vendor.dir}/trusted`;
  await Deno.writeTextFile(trust, "# nobody yet\n");
  await using fabric = await TestFabric.start(2, ["--guests", "2", "--trust", trust]);
  const [a, b] = [TestGuest.of(fabric, 0), TestGuest.of(fabric, 1)];

  const made = await cli(fabric, "plugin", "new", `${vendor.dir}/mynic`);
  assertEquals([made.code, made.err], [0, ""]);
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "test"],
    cwd: `${vendor.dir}/mynic`,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder();
  assertEquals(code, 0, text.decode(stdout) + text.decode(stderr));
  assertMatch(text.decode(stdout), /\d+ passed \| 0 failed/);
  assertEquals(await vendor.sign("mynic/plugin.wasm", "my.image"), {
    ...{ code: 0, out: `signed ${vendor.dir}/my.image\n`, err: "" },
  });

  assertMatch((await cli(fabric, "plugin", "upload", `${vendor.dir}/my.image`)).err, /nobody trusts the key/);
  await Deno.writeTextFile(trust, `${publicKey}\n`);
  assertMatch((await cli(fabric, "plugin", "upload", `${vendor.dir}/my.image`)).out, /mynic +1\.0\.0 +advanced +MIT/);
  for (const vf of ["0", "1"]) {
    assertMatch((await cli(fabric, "vf", "mode", vf, "passthrough", "--plugin", "mynic")).out, /plugin mynic 1\.0\.0/);
  }
  await checkedStream(a, b, { rate: 5000, count: 2000, size: 1400 });
  await checkedStream(b, a, { rate: 5000, count: 2000, size: 70 });

  assertMatch((await cli(fabric, "vf", "mode", "0", "passthrough")).out, /plugin mynic 1\.0\.0/, "it goes on");
  await Deno.writeTextFile(trust, `${publicKey}\n-${publicKey}\n`);
  await a.reaches(b.ip);
  assertMatch((await cli(fabric, "vf", "mode", "0", "passthrough")).out, /plugin advanced 1\.0\.0/, "it is revoked");
  await checkedStream(a, b, { rate: 5000, count: 500 });
});

Deno.test("what an upload would refuse is not signed, and no image is left", async () => {
  const [vendor] = await Vendor.create();
  await using _ = vendor;
  await Deno.writeFile(`${vendor.dir}/good.wasm`, await compilePlugin());
  await Deno.writeFile(
    `${vendor.dir}/strings.wasm`,
    await compilePlugin({}, 'export function text(): string { return "data"; }'),
  );
  await Deno.writeTextFile(`${vendor.dir}/no.wasm`, "(module)");
  await Deno.writeTextFile(`${vendor.dir}/no.json`, '{"publicKey":"00","privateKey":"00"}');
  for (
    const [module, other, refusal] of [
      ["good.wasm", { licence: "GPL-3.0" }, "licence GPL-3.0 is not one of Apache-2.0, MIT"],
      ["good.wasm", { licence: "" }, "the image states no licence"],
      ["good.wasm", { name: "MyNic" }, 'name "MyNic": it is 1 to 32 lower-case letters'],
      ["good.wasm", { name: "advanced" }, "the plugin that comes with the fabric has it"],
      ["good.wasm", { version: "1.0" }, "version 1.0: it is a version such as 1.0.0"],
      ["good.wasm", { hardware: "e1000" }, "hardware e1000: it is advanced or virtio"],
      ["good.wasm", { key: `${vendor.dir}/no.json` }, "holds no key pair"],
      ["strings.wasm", {}, "static data (strings,"],
      ["no.wasm", {}, "not a Wasm module"],
    ] as const
  ) {
    const { code, err } = await vendor.sign(module, "my.image", other);
    assertEquals(code, 1, refusal);
    assertStringIncludes(err, refusal);
  }
  assertEquals([...Deno.readDirSync(vendor.dir)].filter(({ name }) => name === "my.image"), []);
  assertEquals((await vendor.sign("good.wasm", "my.image")).code, 0);
  assertStringIncludes((await vendor.sign("my.image", "again.image")).err, "is an image already");
  const own = await vendor.sign("good.wasm", "own.image", {
    licence: "LicenseRef-own",
    licences: "LicenseRef-own,MIT",
  });
  assertEquals(own.code, 0, own.err);
});
