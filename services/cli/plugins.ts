/** `fabric plugin …`: what vendors and operators do with plugin images. */
import type { Command } from "commander";
import type { PluginView } from "../../shared/api/mod.ts";
import { PLUGIN_ABI } from "../../shared/layout/plugin.ts";
import {
  generateKeys,
  Hardware,
  type KeyPairText,
  rewriteModule,
  signImage,
  validateModule,
} from "../../shared/plugin/mod.ts";
import { type Context, examples } from "./context.ts";
import { UsageError } from "./values.ts";
import { table } from "./views.ts";

interface SignOptions {
  key: string;
  name: string;
  version: string;
  hardware: string;
  licence: string;
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

/** Adds the commands to `parent`. */
export function pluginCommands(parent: Command, context: Context): void {
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
    .action(async (module: string, image: string, options: SignOptions) => {
      const hardware = Hardware.safeParse(options.hardware);
      if (!hardware.success) throw new UsageError(`hardware ${options.hardware}: it is advanced or virtio`);
      const keys = JSON.parse(await Deno.readTextFile(options.key)) as KeyPairText;
      const { name, version, licence } = options;
      const info = { name, version, hardware: hardware.data, abi: PLUGIN_ABI };
      // What an upload would refuse is refused here, and every module is signed in its one form.
      const canonical = rewriteModule(await Deno.readFile(module), false);
      await validateModule(canonical);
      await Deno.writeFile(image, await signImage(canonical, info, licence, keys));
      show({ image }, () => `signed ${image}`);
    });
}
