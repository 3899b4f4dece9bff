/**
 * A plugin's image: a Wasm module that says in custom sections what it is, under which licence, and who signed it
 * (docs/plugin-api.md). It is checked without being run: by the service that stores it, and again by the shell that
 * instantiates it. Whatever is wrong has a name.
 */
import { z } from "zod";
import { PLUGIN_ABI } from "../layout/plugin.ts";
import { Reader, Writer } from "./binary.ts";
import { CUSTOM, SECTIONS_MAX } from "./module_format.ts";
import { PluginRejected } from "./rejected.ts";

/** Largest image. */
export const IMAGE_BYTES_MAX = 256 * 1024;

/** Custom sections of an image; the signature's is the last of all sections. */
export const SECTION_PLUGIN = "ringfabric.plugin";
export const SECTION_LICENCE = "ringfabric.licence";
export const SECTION_SIGNATURE = "ringfabric.signature";

/** Licences under which plugins are taken, unless a service is told otherwise (SPDX identifiers). */
export const LICENCES = ["Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "GPL-2.0-only", "GPL-2.0-or-later"];

/** Hardware that plugins are for. */
export const Hardware = z.enum(["advanced", "virtio"]);
export type Hardware = z.output<typeof Hardware>;

/** What an image says about itself. */
export const PluginInfo = z.strictObject({
  name: z.string().regex(/^[a-z][a-z0-9-]{0,31}$/, "is 1 to 32 lower-case letters, digits and dashes, a letter first"),
  version: z.string().regex(/^(0|[1-9]\d{0,3})(\.(0|[1-9]\d{0,3})){2}$/, "is a version such as 1.0.0"),
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
  const reader = new Reader(image, 8);
  while (!reader.done) {
    if (sections.length === SECTIONS_MAX) {
      throw new PluginRejected("too-complex", `the image has more than ${SECTIONS_MAX} sections`);
    }
    const start = reader.at;
    const id = reader.byte();
    const content = reader.part(reader.u32());
    // A byte order mark is part of the name: without it two images would be one.
    const name = id === CUSTOM ? new TextDecoder("utf-8", { ignoreBOM: true }).decode(content.take(content.u32())) : "";
    sections.push({ id, name, start, body: content.rest().slice() });
  }
  return sections;
}

/** `image` with one more custom section at its end. */
export function withSection(
  image: Uint8Array<ArrayBuffer>,
  name: string,
  body: Uint8Array | string,
): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder();
  const content = new Writer();
  content.sized(text.encode(name));
  content.raw(typeof body === "string" ? text.encode(body) : body);
  const section = new Writer();
  section.byte(CUSTOM);
  section.sized(content.bytes);
  return Uint8Array.from([...image, ...section.bytes]);
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
