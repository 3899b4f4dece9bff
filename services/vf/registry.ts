/**
 * The registry of plugin images: a folder with a file for each version. An image is checked before it is stored and
 * again when it is read, so that what is injected is what was signed, whatever happened to the file.
 */
import { encodeHex } from "@std/encoding/hex";
import { ApiError, log, oneLine, type PluginView } from "../../shared/api/mod.ts";
import { type CheckedImage, checkImage, PluginRejected, type Trust } from "../../shared/plugin/mod.ts";

/** Images that are kept at the most. */
const IMAGES_MAX = 256;

/** An image with what is known of it. */
export interface StoredImage {
  view: PluginView;
  image: Uint8Array<ArrayBuffer>;
}

function newestFirst(a: PluginView, b: PluginView): number {
  const [x, y] = [a, b].map(({ version }) => version.split(".").map(Number)) as [number[], number[]];
  for (let i = 0; i < 3; i++) {
    const order = (y[i] ?? 0) - (x[i] ?? 0);
    if (order !== 0) return order;
  }
  return 0;
}

/** The images of one folder. */
export class Registry {
  readonly #dir: string;
  readonly #trust: Trust;
  readonly #views = new Map<string, PluginView>();
  readonly #paths = new Map<string, string>();

  private constructor(dir: string, trust: Trust) {
    this.#dir = dir;
    this.#trust = trust;
  }

  /**
   * Opens the folder `dir` of uploaded images, and `builtin` with those that come along. Images that do not pass are
   * left where they are and not offered.
   */
  static async open(dir: string, builtin: string | undefined, trust: Trust): Promise<Registry> {
    const registry = new Registry(dir, trust);
    for (const folder of builtin === undefined ? [dir] : [dir, builtin]) {
      for (const name of filesOf(folder)) if (name.endsWith(".wasm")) await registry.#offer(`${folder}/${name}`);
    }
    return registry;
  }

  async #offer(path: string): Promise<void> {
    try {
      const image = await Deno.readFile(path);
      const view = await describe(image, await checkImage(image, this.#trust));
      this.#views.set(keyOf(view), view);
      this.#paths.set(keyOf(view), path);
    } catch (error) {
      log("warn", "vf", `plugin image ${path} is not offered: ${oneLine(error)}`);
    }
  }

  get list(): PluginView[] {
    return [...this.#views.values()].sort((a, b) => a.name === b.name ? newestFirst(a, b) : a.name < b.name ? -1 : 1);
  }

  get trust(): Trust {
    return this.#trust;
  }

  /** Stores an image. Throws ApiError naming why it is rejected; the same image again is no change. */
  async add(image: Uint8Array<ArrayBuffer>): Promise<PluginView> {
    const view = await describe(image, await this.#check(image));
    const known = this.#views.get(keyOf(view));
    if (known && known.sha256 !== view.sha256) {
      const name = `${view.name} ${view.version}`;
      throw new ApiError(409, `there is another ${name} already: give it another version`, "version", "version-taken");
    }
    if (!known && this.#views.size >= IMAGES_MAX) {
      throw new ApiError(409, `the registry holds ${IMAGES_MAX} images: remove one first`, undefined, "registry-full");
    }
    if (known) return view;
    const path = `${this.#dir}/${keyOf(view)}.wasm`;
    await Deno.mkdir(this.#dir, { recursive: true, mode: 0o700 });
    await Deno.writeFile(`${path}.new`, image, { mode: 0o600 });
    await Deno.rename(`${path}.new`, path);
    this.#paths.set(keyOf(view), path);
    this.#views.set(keyOf(view), view);
    return view;
  }

  async #check(image: Uint8Array<ArrayBuffer>): Promise<CheckedImage> {
    try {
      return await checkImage(image, this.#trust);
    } catch (error) {
      if (!(error instanceof PluginRejected)) throw error;
      throw new ApiError(422, `plugin rejected: ${error.message}`, "image", error.code);
    }
  }

  /** The image `name@version`, or the newest of `name`. Throws ApiError if there is none, or it is no longer good. */
  async find(wanted: string): Promise<StoredImage> {
    const [name, version] = wanted.split("@");
    const view = this.list.find((view) => view.name === name && (version === undefined || view.version === version));
    if (!view) {
      const known = this.list.map(keyOf).join(", ") || "none";
      throw new ApiError(404, `there is no plugin ${wanted}; there are: ${known}`, "plugin", "unknown-plugin");
    }
    const image = await Deno.readFile(this.#paths.get(keyOf(view)) ?? "");
    const { sha256 } = await describe(image, await this.#check(image));
    if (sha256 !== view.sha256) {
      const detail = `the file of ${keyOf(view)} is not the image that was stored: upload it again`;
      throw new ApiError(409, detail, "plugin", "plugin-rejected");
    }
    return { view, image };
  }

  /** Takes an image out. */
  async remove(name: string, version: string): Promise<PluginView> {
    const key = keyOf({ name, version });
    const view = this.#views.get(key);
    if (!view) throw new ApiError(404, `there is no plugin ${key}`, "plugin", "unknown-plugin");
    const path = this.#paths.get(key) ?? "";
    if (!path.startsWith(`${this.#dir}/`)) {
      throw new ApiError(409, `${key} comes with the fabric and cannot be removed`, "plugin", "builtin");
    }
    await Deno.remove(path);
    this.#views.delete(key);
    this.#paths.delete(key);
    return view;
  }
}

/** Names in a folder, which is made when the first image is stored. */
function filesOf(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

function keyOf({ name, version }: { name: string; version: string }): string {
  return `${name}@${version}`;
}

async function describe(image: Uint8Array<ArrayBuffer>, { info, licence }: CheckedImage): Promise<PluginView> {
  const sha256 = encodeHex(await crypto.subtle.digest("SHA-256", image));
  return { ...info, licence, bytes: image.length, sha256 };
}
