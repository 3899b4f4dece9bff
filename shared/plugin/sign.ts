/** Signatures of plugin images: Ed25519 by WebCrypto. A key is known by the first 8 bytes of its SHA-256. */
import { decodeHex, encodeHex } from "@std/encoding/hex";
import {
  checkLicence,
  infoOf,
  LICENCES,
  type PluginInfo,
  SECTION_LICENCE,
  SECTION_PLUGIN,
  SECTION_SIGNATURE,
  signatureOf,
  withSection,
} from "./image.ts";
import { validateModule } from "./module.ts";
import { PluginRejected } from "./rejected.ts";

const ALGORITHM = { name: "Ed25519" };

/** Keys by which images are believed: raw public keys of 32 bytes, in hex. */
export interface Trust {
  keys: readonly string[];
  licences?: readonly string[];
}

/** A key pair as text: the private key is PKCS #8, in hex. */
export interface KeyPairText {
  publicKey: string;
  privateKey: string;
}

/**
 * The public keys in some files, one in a line; # begins a remark. `-` before a key revokes it, wherever it is trusted.
 * Throws what is wrong with which.
 */
export function readKeys(paths: readonly string[]): string[] {
  const keys = new Set<string>();
  const revoked = new Set<string>();
  for (const path of paths) {
    for (const line of readKeyFile(path).split("\n")) {
      const [, sign, key] = /^(-?)([0-9a-f]{64})$/i.exec(line.replace(/#.*/, "").trim()) ?? [];
      if (key !== undefined) (sign === "-" ? revoked : keys).add(key.toLowerCase());
      else if (line.replace(/#.*/, "").trim() !== "") {
        throw new Error(`Cannot trust a key in ${path}: ${line.slice(0, 70)} is not 32 bytes in hex`);
      }
    }
  }
  return [...keys].filter((key) => !revoked.has(key));
}

function readKeyFile(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "there is no such file" : (error as Error).message;
    throw new Error(`Cannot trust the keys in ${path}: ${why}`, { cause: error });
  }
}

/** A new key pair. */
export async function generateKeys(): Promise<KeyPairText> {
  const pair = await crypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]) as CryptoKeyPair;
  return {
    publicKey: encodeHex(await crypto.subtle.exportKey("raw", pair.publicKey)),
    privateKey: encodeHex(await crypto.subtle.exportKey("pkcs8", pair.privateKey)),
  };
}

async function keyIdOf(publicKey: string): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", decodeHex(publicKey) as Uint8Array<ArrayBuffer>)).slice(
    0,
    8,
  );
}

/** A module as a signed image: what it is, its licence (SPDX), and the signature over all of it. */
export async function signImage(
  module: Uint8Array<ArrayBuffer>,
  info: PluginInfo,
  licence: string,
  keys: KeyPairText,
): Promise<Uint8Array<ArrayBuffer>> {
  const described = withSection(withSection(module, SECTION_PLUGIN, JSON.stringify(info)), SECTION_LICENCE, licence);
  return await addSignature(described, keys);
}

/** An image with a signature over everything that is there. */
export async function addSignature(
  image: Uint8Array<ArrayBuffer>,
  keys: KeyPairText,
): Promise<Uint8Array<ArrayBuffer>> {
  const pkcs8 = decodeHex(keys.privateKey) as Uint8Array<ArrayBuffer>;
  const key = await crypto.subtle.importKey("pkcs8", pkcs8, ALGORITHM, false, ["sign"]);
  const signature = new Uint8Array(await crypto.subtle.sign(ALGORITHM, key, image));
  return withSection(image, SECTION_SIGNATURE, Uint8Array.from([...await keyIdOf(keys.publicKey), ...signature]));
}

/** The trusted key that signed the image as it is. Throws PluginRejected if none did. */
async function verifySignature(image: Uint8Array<ArrayBuffer>, keys: readonly string[]): Promise<string> {
  const { keyId, signature, signed } = signatureOf(image);
  for (const publicKey of keys) {
    const id = await keyIdOf(publicKey);
    if (!id.every((byte, i) => byte === keyId[i])) continue;
    const raw = decodeHex(publicKey) as Uint8Array<ArrayBuffer>;
    const key = await crypto.subtle.importKey("raw", raw, ALGORITHM, false, ["verify"]);
    if (await crypto.subtle.verify(ALGORITHM, key, signature, signed)) return publicKey;
    throw new PluginRejected("bad-signature", "the image is not what was signed");
  }
  throw new PluginRejected("unknown-key", `nobody trusts the key ${encodeHex(keyId)} that signed the image`);
}

/** An image that has passed every check. */
export interface CheckedImage {
  info: PluginInfo;
  licence: string;
  /** The public key of who signed it. */
  signer: string;
  /** As it is to run, with the guard. */
  module: WebAssembly.Module;
}

/** All checks, in the order in which they can be believed. Throws PluginRejected with the name of what is wrong. */
export async function checkImage(image: Uint8Array<ArrayBuffer>, trust: Trust): Promise<CheckedImage> {
  const signer = await verifySignature(image, trust.keys);
  const licence = checkLicence(image, trust.licences ?? LICENCES);
  const info = infoOf(image);
  return { info, licence, signer, module: await validateModule(image) };
}
