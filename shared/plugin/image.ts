/**
 * A plugin's image: a Wasm module that says in custom sections what it is, under which licence, and who signed it
 * (docs/plugin-api.md). It is checked without being run: by the service that stores it, and again by the shell that
 * instantiates it. Whatever is wrong has a name.
 */
import { z } from "zod";
import { PLUGIN_ABI } from "../layout/plugin.ts";

/** Largest image. */
export const IMAGE_BYTES_MAX = 256 * 1024;

/** Custom sections of an image; the signature's is the last of all sections. */
export const SECTION_PLUGIN = "ringfabric.plugin";
export const SECTION_LICENCE = "ringfabric.licence";
export const SECTION_SIGNATURE = "ringfabric.signature";

/** Licences under which plugins are taken, unless a service is told otherwise (SPDX identifiers). */
export const LICENCES = ["Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-only", "GPL-2.0-or-later"];

/** Why an image is refused. */
export type RejectionCode =
  | "not-wasm"
  | "too-large"
  | "unsigned"
  | "unknown-key"
  | "bad-signature"
  | "bad-metadata"
  | "abi-mismatch"
  | "licence-missing"
  | "licence-not-allowed"
  | "import-not-allowed"
  | "export-missing"
  | "own-memory"
  | "start-function"
  | "section-not-allowed";

/** An image that is not taken, with the name of the reason. */
export class PluginRejected extends Error {
  override readonly name = "PluginRejected";
  readonly code: RejectionCode;

  constructor(code: RejectionCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** Hardware that plugins are for. */
export const Hardware = z.enum(["advanced", "virtio"]);
export type Hardware = z.output<typeof Hardware>;

/** What an image says about itself. */
export const PluginInfo = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/, "is lower-case letters, digits and dashes"),
  version: z.string().regex(/^\d{1,4}\.\d{1,4}\.\d{1,4}$/, "is a version such as 1.0.0"),
  hardware: Hardware,
  abi: z.int(),
});
export type PluginInfo = z.output<typeof PluginInfo>;

interface Section {
  id: number;
  /** Of custom sections. */
  name: string;
  start: number;
  body: Uint8Array<ArrayBuffer>;
}

// Sections of the binary format (WebAssembly core specification §5.5.2)
const CUSTOM = 0;
const MEMORY = 5;
const START = 8;
const DATA = 11;
/** Types, imports, functions, globals, exports, code: all that a plugin needs. */
const ALLOWED = new Set([CUSTOM, 1, 2, 3, 6, 7, 10]);
const ALLOWED_IMPORTS = new Set(["env.memory memory", "shell.notify function"]);
/** Functions that a shell calls. */
export const PLUGIN_EXPORTS = ["abi", "start", "stop", "tx", "txDone", "post", "rx", "arm", "disarm"] as const;

function readLength(bytes: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let i = 0; i < 5; i++) {
    const byte = bytes[at + i];
    if (byte === undefined) break;
    value += (byte & 0x7f) * 2 ** (7 * i);
    if ((byte & 0x80) === 0) return [value, at + i + 1];
  }
  throw new PluginRejected("not-wasm", "a length in the image is cut off");
}

/** The sections of a module. Throws PluginRejected if it is no module. */
export function sectionsOf(image: Uint8Array<ArrayBuffer>): Section[] {
  if (image.length > IMAGE_BYTES_MAX) {
    throw new PluginRejected("too-large", `the image is ${image.length} bytes: at most ${IMAGE_BYTES_MAX}`);
  }
  const magic = new DataView(image.buffer, image.byteOffset, image.byteLength);
  if (image.length < 8 || magic.getUint32(0, true) !== 0x6d736100 || magic.getUint32(4, true) !== 1) {
    throw new PluginRejected("not-wasm", "the image is not a Wasm module");
  }
  const sections: Section[] = [];
  for (let at = 8; at < image.length;) {
    const start = at;
    const id = image[at] ?? 0;
    const [size, begin] = readLength(image, at + 1);
    const end = begin + size;
    if (end > image.length) throw new PluginRejected("not-wasm", "a section of the image is cut off");
    let name = "";
    let body = image.slice(begin, end);
    if (id === CUSTOM) {
      const [nameBytes, nameAt] = readLength(image, begin);
      if (nameAt + nameBytes > end) throw new PluginRejected("not-wasm", "a custom section's name is cut off");
      name = new TextDecoder().decode(image.slice(nameAt, nameAt + nameBytes));
      body = image.slice(nameAt + nameBytes, end);
    }
    sections.push({ id, name, start, body });
    at = end;
  }
  return sections;
}

function lengthBytes(n: number): number[] {
  const bytes: number[] = [];
  do {
    bytes.push((n & 0x7f) | (n > 0x7f ? 0x80 : 0));
    n >>>= 7;
  } while (n > 0);
  return bytes;
}

/** `image` with one more custom section at its end. */
export function withSection(
  image: Uint8Array<ArrayBuffer>,
  name: string,
  body: Uint8Array | string,
): Uint8Array<ArrayBuffer> {
  const nameBytes = new TextEncoder().encode(name);
  const bodyBytes = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const content = [...lengthBytes(nameBytes.length), ...nameBytes, ...bodyBytes];
  return Uint8Array.from([...image, CUSTOM, ...lengthBytes(content.length), ...content]);
}

function onlySection(sections: readonly Section[], name: string): Section | undefined {
  const found = sections.filter((section) => section.name === name);
  if (found.length > 1) throw new PluginRejected("bad-metadata", `the image has ${found.length} sections ${name}`);
  return found[0];
}

/** The signature of an image and what it covers: everything before the section that holds it. */
export function signatureOf(image: Uint8Array<ArrayBuffer>): {
  keyId: Uint8Array<ArrayBuffer>;
  signature: Uint8Array<ArrayBuffer>;
  signed: Uint8Array<ArrayBuffer>;
} {
  const sections = sectionsOf(image);
  const section = onlySection(sections, SECTION_SIGNATURE);
  if (!section) throw new PluginRejected("unsigned", "the image is not signed");
  if (sections.at(-1) !== section || section.body.length !== 8 + 64) {
    throw new PluginRejected("bad-signature", "the signature is not the image's end, or not 72 bytes");
  }
  return {
    keyId: section.body.slice(0, 8),
    signature: section.body.slice(8),
    signed: image.slice(0, section.start),
  };
}

/** What the image says about itself. Throws PluginRejected. */
export function infoOf(image: Uint8Array<ArrayBuffer>): PluginInfo {
  const section = onlySection(sectionsOf(image), SECTION_PLUGIN);
  if (!section) throw new PluginRejected("bad-metadata", `the image has no section ${SECTION_PLUGIN}`);
  let said: unknown;
  try {
    said = JSON.parse(new TextDecoder().decode(section.body));
  } catch {
    throw new PluginRejected("bad-metadata", `section ${SECTION_PLUGIN} is not JSON`);
  }
  const info = PluginInfo.safeParse(said);
  if (!info.success) throw new PluginRejected("bad-metadata", `${SECTION_PLUGIN}: ${z.prettifyError(info.error)}`);
  if (info.data.abi !== PLUGIN_ABI) {
    throw new PluginRejected("abi-mismatch", `the plugin is for ABI ${info.data.abi}: this is ABI ${PLUGIN_ABI}`);
  }
  return info.data;
}

/** The licence that the image states. Throws PluginRejected if it states none, or one that is not in `allowed`. */
export function checkLicence(image: Uint8Array<ArrayBuffer>, allowed: readonly string[]): string {
  const section = onlySection(sectionsOf(image), SECTION_LICENCE);
  const licence = section ? new TextDecoder().decode(section.body).trim() : "";
  if (licence === "") throw new PluginRejected("licence-missing", "the image states no licence");
  if (!allowed.includes(licence)) {
    throw new PluginRejected(
      "licence-not-allowed",
      `licence ${licence.slice(0, 60)} is not one of ${allowed.join(", ")}`,
    );
  }
  return licence;
}

/** Checks that the module can do no more than a plugin may. Throws PluginRejected; answers the compiled module. */
export async function validateModule(image: Uint8Array<ArrayBuffer>): Promise<WebAssembly.Module> {
  for (const { id } of sectionsOf(image)) {
    if (id === MEMORY) throw new PluginRejected("own-memory", "the image has a memory of its own");
    if (id === START) throw new PluginRejected("start-function", "the image has a start function");
    if (id === DATA) {
      throw new PluginRejected("section-not-allowed", "the image has data, which would be written unasked");
    }
    if (!ALLOWED.has(id)) throw new PluginRejected("section-not-allowed", `the image has a section of kind ${id}`);
  }
  let module: WebAssembly.Module;
  try {
    module = await WebAssembly.compile(image);
  } catch (error) {
    throw new PluginRejected("not-wasm", `the image does not compile: ${(error as Error).message}`);
  }
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    if (!ALLOWED_IMPORTS.has(`${from}.${name} ${kind}`)) {
      throw new PluginRejected(
        "import-not-allowed",
        `the image imports ${from}.${name}, which is not a shell function`,
      );
    }
  }
  const functions = new Set(
    WebAssembly.Module.exports(module).filter(({ kind }) => kind === "function").map(({ name }) => name),
  );
  const missing = PLUGIN_EXPORTS.filter((name) => !functions.has(name));
  if (missing.length > 0) throw new PluginRejected("export-missing", `the image does not export ${missing.join(", ")}`);
  return module;
}
