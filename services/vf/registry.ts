/**
 * The registry of plugin images: a folder with a file for each version. An image is checked before it is stored and
 * again when it is read, so that what is injected is what was signed, whatever happened to the file. A name belongs to
 * the key that first published under it, also when all its images have gone: no vendor can put a higher version of
 * somebody else's plugin in its place.
 */
import { z } from "zod";
import { encodeHex } from "@std/encoding/hex";
import { ApiError, log, oneLine, type PluginView } from "../../shared/api/mod.ts";
import { Turns } from "../../shared/async/mod.ts";
import { type CheckedImage, checkImage, PluginRejected, type Trust } from "../../shared/plugin/mod.ts";

/** Images that are kept at the most. */
const IMAGES_MAX = 256;
/** Names that vendors may have, those without images included. */
const NAMES_MAX = 1024;
/** The file beside the images that says whose which name is. */
const SIGNERS_FILE = "signers.json";
/** And the one that says which was the newest version of each. */
const NEWEST_FILE = "newest.json";
const TextMap = z.record(z.string(), z.string());

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
  /** Public key by name: those kept on disk, and those of the images that come along. */
  #signers = new Map<string, string>();
  readonly #builtinSigners = new Map<string, string>();
  /** The newest version of each name that was ever there, uploaded or not. */
  #newest = new Map<string, string>();
  readonly #turns = new Turns();

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
    registry.#signers = await readMap(`${dir}/${SIGNERS_FILE}`);
    registry.#newest = await readMap(`${dir}/${NEWEST_FILE}`);
    for (const folder of builtin === undefined ? [dir] : [builtin, dir]) {
      const images = filesOf(folder).filter((name) => name.endsWith(".wasm")).sort();
      for (const name of images) await registry.#offer(`${folder}/${name}`, folder === builtin);
    }
    return registry;
  }

  async #offer(path: string, isBuiltin: boolean): Promise<void> {
    try {
      const image = await Deno.readFile(path);
      const view = await describe(image, await checkImage(image, this.#trust));
      if (!path.endsWith(`/${keyOf(view)}.wasm`)) throw new Error(`it is ${keyOf(view)}, by another name`);
      if (this.#views.has(keyOf(view))) throw new Error(`there is ${keyOf(view)} already`);
      if (isBuiltin) this.#builtinSigners.set(view.name, view.signer);
      else this.#mustOwnName(view);
      if (!isBuiltin && !this.#signers.has(view.name)) this.#signers.set(view.name, view.signer);
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

  /** Throws unless the image's name is its signer's, or nobody's yet. */
  #mustOwnName({ name, signer }: PluginView): void {
    const owner = this.#builtinSigners.get(name) ?? this.#signers.get(name);
    if (owner === undefined || owner === signer) return;
    const detail = `the name ${name} belongs to another vendor (key ${owner.slice(0, 16)}…): choose another name`;
    throw new ApiError(409, detail, "name", "name-taken");
  }

  /** Throws if a newer version of it was there: an old fault does not come back because somebody took the mend away. */
  #mustBeNewest(view: PluginView): void {
    const newest = this.#newest.get(view.name);
    if (newest === undefined || newestFirst(view, { ...view, version: newest }) <= 0) return;
    const detail = `${keyOf(view)} is older than ${newest}, which was there: name the version to have it all the same`;
    throw new ApiError(409, detail, "plugin", "older-version");
  }

  /** Stores an image. Throws ApiError naming why it is rejected; the same image again is no change. */
  add(image: Uint8Array<ArrayBuffer>): Promise<PluginView> {
    // One after the other: two different images of one version may come at once.
    return this.#turns.take(async () => await this.#store(image, await describe(image, await this.#check(image))));
  }

  async #store(image: Uint8Array<ArrayBuffer>, view: PluginView): Promise<PluginView> {
    this.#mustOwnName(view);
    const known = this.#views.get(keyOf(view));
    if (known && known.sha256 !== view.sha256) {
      const name = `${view.name} ${view.version}`;
      throw new ApiError(409, `there is another ${name} already: give it another version`, "version", "version-taken");
    }
    if (!known && this.#views.size >= IMAGES_MAX) {
      throw new ApiError(409, `the registry holds ${IMAGES_MAX} images: remove one first`, undefined, "registry-full");
    }
    if (!this.#signers.has(view.name) && this.#signers.size >= NAMES_MAX) {
      throw new ApiError(409, `${NAMES_MAX} names of plugins have been given away`, undefined, "registry-full");
    }
    if (known && !this.#isUploaded(known)) return known;
    // The same image again is written again: its file may have gone, or been damaged.
    const path = `${this.#dir}/${keyOf(view)}.wasm`;
    await Deno.mkdir(this.#dir, { recursive: true, mode: 0o700 });
    const signers = new Map([...this.#signers, [view.name, view.signer]]);
    await replaceFile(`${this.#dir}/${SIGNERS_FILE}`, toBytes(signers));
    this.#signers = signers;
    await replaceFile(path, image);
    const before = this.#newest.get(view.name);
    if (before === undefined || newestFirst(view, { ...view, version: before }) < 0) {
      this.#newest.set(view.name, view.version);
      await replaceFile(`${this.#dir}/${NEWEST_FILE}`, toBytes(this.#newest));
    }
    this.#paths.set(keyOf(view), path);
    this.#views.set(keyOf(view), view);
    return view;
  }

  #isUploaded(view: PluginView): boolean {
    return this.#paths.get(keyOf(view))?.startsWith(`${this.#dir}/`) === true;
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
    if (view && version === undefined) this.#mustBeNewest(view);
    if (!view) {
      const known = this.list.map(keyOf).join(", ") || "none";
      throw new ApiError(404, `there is no plugin ${wanted}; there are: ${known}`, "plugin", "unknown-plugin");
    }
    const image = await Deno.readFile(this.#paths.get(keyOf(view)) ?? "").catch((error) => {
      const detail = `the image of ${keyOf(view)} cannot be read (${oneLine(error)}): upload it again`;
      throw new ApiError(409, detail, "plugin", "plugin-rejected");
    });
    const { sha256 } = await describe(image, await this.#check(image));
    if (sha256 !== view.sha256) {
      const detail = `the file of ${keyOf(view)} is not the image that was stored: upload it again`;
      throw new ApiError(409, detail, "plugin", "plugin-rejected");
    }
    return { view, image };
  }

  /** Takes an image out. Its name stays its vendor's. */
  remove(name: string, version: string): Promise<PluginView> {
    return this.#turns.take(() => this.#remove(name, version));
  }

  async #remove(name: string, version: string): Promise<PluginView> {
    const key = keyOf({ name, version });
    const view = this.#views.get(key);
    if (!view) throw new ApiError(404, `there is no plugin ${key}`, "plugin", "unknown-plugin");
    if (!this.#isUploaded(view)) {
      throw new ApiError(409, `${key} comes with the fabric and cannot be removed`, "plugin", "builtin");
    }
    await Deno.remove(this.#paths.get(key) ?? "").catch((error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    });
    this.#views.delete(key);
    this.#paths.delete(key);
    return view;
  }
}

/** What the last service has left of names: whose each is, or its newest version. Throws if it cannot be read. */
async function readMap(path: string): Promise<Map<string, string>> {
  try {
    return new Map(Object.entries(TextMap.parse(JSON.parse(await Deno.readTextFile(path)))));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return new Map();
    const remedy = "restore it, or remove it if every image in the folder is its vendor's own and the newest";
    throw new Error(`Cannot read what is known of plugins' names from ${path}: ${oneLine(error)}; ${remedy}`);
  }
}

function toBytes(map: ReadonlyMap<string, string>): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(Object.fromEntries(map)));
}

/** Writes a file whole or not at all, and has it on disk. */
async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const part = `${path}.${crypto.randomUUID()}.new`;
  try {
    using file = await Deno.open(part, { write: true, createNew: true, mode: 0o600 });
    for (let at = 0; at < bytes.length;) at += await file.write(bytes.subarray(at));
    await file.sync();
    await Deno.rename(part, path);
  } catch (error) {
    await Deno.remove(part).catch(() => {});
    throw error;
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

async function describe(image: Uint8Array<ArrayBuffer>, { info, licence, signer }: CheckedImage): Promise<PluginView> {
  const sha256 = encodeHex(await crypto.subtle.digest("SHA-256", image));
  return { ...info, licence, bytes: image.length, sha256, signer };
}
