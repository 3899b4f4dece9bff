/** `fabric plugin …`: what vendors and operators do with plugin images. */
import type { Command } from "commander";
import type { PluginView } from "../../shared/api/mod.ts";
import { PLUGIN_ABI } from "../../shared/layout/plugin.ts";
import {
  checkImage,
  generateKeys,
  Hardware,
  type KeyPairText,
  LICENCES,
  PluginInfo,
  rewriteModule,
  SECTION_PLUGIN,
  sectionsOf,
  signImage,
} from "../../shared/plugin/mod.ts";
import { type Context, examples } from "./context.ts";
import { mustBeFree, newPlugin } from "./new_plugin.ts";
import { UsageError } from "./values.ts";
import { table } from "./views.ts";

interface SignOptions {
  key: string;
  name: string;
  version: string;
  hardware: string;
  licence: string;
  licences: string;
}

/** The key pair that `keygen` has written to a file. */
async function readKeyPair(path: string): Promise<KeyPairText> {
  const { publicKey, privateKey } = await Deno.readTextFile(path).then((text) => JSON.parse(text) ?? {}).catch(
    (error) => {
      if (!(error instanceof SyntaxError)) throw error;
      return {};
    },
  );
  if (/^[0-9a-f]{64}$/.test(publicKey) && /^([0-9a-f]{2})+$/.test(privateKey)) return { publicKey, privateKey };
  throw new UsageError(
    `${path} holds no key pair: fabric plugin keygen makes one, and this is the file that it writes`,
  );
}

/** A module as an image that every upload takes which trusts its key. Throws what an upload would refuse. */
async function signedImage(module: Uint8Array<ArrayBuffer>, options: SignOptions): Promise<Uint8Array<ArrayBuffer>> {
  const { name, version, licence } = options;
  const hardware = Hardware.safeParse(options.hardware);
  if (!hardware.success) throw new UsageError(`hardware ${options.hardware}: it is advanced or virtio`);
  mustBeFree(name);
  const isVersion = PluginInfo.shape.version.safeParse(version);
  if (!isVersion.success) throw new UsageError(`version ${version}: it ${isVersion.error.issues[0]?.message}`);
  const keys = await readKeyPair(options.key);
  if (sectionsOf(module).some((section) => section.name === SECTION_PLUGIN)) {
    throw new UsageError("the module is an image already: sign what the compiler has made");
  }
  // Every module is signed in its one form.
  const canonical = rewriteModule(module, false);
  const image = await signImage(canonical, { name, version, hardware: hardware.data, abi: PLUGIN_ABI }, licence, keys);
  await checkImage(image, { keys: [keys.publicKey], licences: options.licences.split(",") });
  return image;
}

function pluginTable(plugins: readonly PluginView[]): string {
  return table(
    ["NAME", "VERSION", "HARDWARE", "LICENCE", "BYTES", "SHA-256"],
    plugins.map(({ name, version, hardware, licence, bytes, sha256 }) => [
      ...[name, version, hardware, licence, bytes],
      sha256.slice(0, 16),
    ]),
  );
}

/** Adds the commands to `parent`. `compiler` is the one that a new plugin is built with. */
export function pluginCommands(parent: Command, context: Context, compiler: string): void {
  registryCommands(parent, context);
  vendorCommands(parent, context, compiler);
}

function registryCommands(parent: Command, context: Context): void {
  const show = (value: unknown, text: () => string) => context.show(value, text);
  const peer = () => context.vf;
  examples(parent.command("list").description("images in the registry"), "plugin list").action(async () => {
    const plugins = await peer().ask<PluginView[]>("GET", "/api/v1/plugins");
    show(plugins, () => pluginTable(plugins));
  });
  examples(parent.command("upload <file>").description("store a signed image"), "plugin upload my.image").action(
    async (file: string) => {
      const stored = await peer().ask<PluginView>("POST", "/api/v1/plugins", await Deno.readFile(file));
      show(stored, () => pluginTable([stored]));
    },
  );
  examples(
    parent.command("remove <name> <version>").description("take an image out"),
    "plugin remove mine 1.0.0",
  ).action(
    async (name: string, version: string) => {
      const gone = await peer().ask<PluginView>("DELETE", `/api/v1/plugins/${name}/${version}`);
      show(gone, () => `${gone.name} ${gone.version} is gone`);
    },
  );
}

function vendorCommands(parent: Command, context: Context, compiler: string): void {
  const show = (value: unknown, text: () => string) => context.show(value, text);
  examples(
    parent.command("new <dir>").description("a plugin to begin with: its source, a build command, and a test"),
    "plugin new ../mynic",
    "plugin new /tmp/plugin --name mynic",
  )
    .option("--name <name>", "name of the plugin, if it is not its directory's")
    .action(async (dir: string, options: { name?: string }) => {
      const made = await newPlugin(dir, options.name, compiler);
      show(made, () =>
        `made ${made.name} in ${made.dir}; build and test it, and read on in its README.md:\n` +
        `  cd ${made.dir} && npx -y deno@${Deno.version.deno} task test`);
    });
  examples(
    parent.command("keygen <file>").description("a new key pair; the public key is printed, to be trusted by others"),
    "plugin keygen vendor.key > vendor.pub",
  )
    .action(async (file: string) => {
      const keys = await generateKeys();
      await Deno.writeTextFile(file, JSON.stringify(keys), { createNew: true, mode: 0o600 });
      show(keys.publicKey, () => keys.publicKey);
    });
  examples(
    parent.command("sign <module> <image>").description("sign a Wasm module as a plugin image"),
    "plugin sign mine.wasm my.image --key vendor.key --name mine --version 1.0.0 --hardware virtio --licence MIT",
  )
    .requiredOption("--key <file>", "key pair made by keygen")
    .requiredOption("--name <name>", "name of the plugin")
    .requiredOption("--version <version>", "its version, such as 1.0.0")
    .requiredOption("--hardware <kind>", "whose rings it drives: advanced or virtio")
    .requiredOption("--licence <spdx>", "its licence, such as Apache-2.0")
    .option("--licences <list>", "licences that the fabric takes, if it is told others", LICENCES.join(","))
    .action(async (module: string, image: string, options: SignOptions) => {
      await Deno.writeFile(image, await signedImage(await Deno.readFile(module), options));
      show({ image }, () => `signed ${image}`);
    });
}
