/** Where the services of a fabric are, from outside and from each other. */
import { dirname, fromFileUrl, relative, resolve } from "@std/path";
import { ROOT, TRUSTED_KEYS } from "../../shared/wasm/load.ts";
import type { Options } from "./options.ts";

/** The services' ports, from the PF's on; guests' from GUESTS on. */
export const PF = 0;
export const VHOST = 1;
export const VF = 2;
export const NIC = 3;
export const GUESTS = 10;

/** Who may ask what, and where the command line sends its token: that is up's word, and no service's. */
const UPS_FILES = ["token", "access.json", "fabric.json", "up.lock"];
/** What each service has in the run directory, beside ports' sockets. */
const OWN_FILES = {
  nic: ["nic.sock", "passthrough.sock", "nic-standby.sock"],
  pf: ["pf.sqlite", "pf.sqlite-journal", "pf.sqlite-wal"],
  vhost: ["vhost-ports.json", "vhost-standby.sock"],
  vf: ["plugins"],
} as const;

/** Addresses and files of a fabric. */
export class Places {
  readonly root: string;
  readonly runDir: string;
  /** Files with the keys of those whose plugins are taken. */
  readonly trust: string[];
  #aliases: string | undefined;
  #aliasCount = 0;
  readonly #port: number;
  readonly #host: string;

  constructor({ host, port, runDir, trust }: Options) {
    this.#host = host;
    this.#port = port;
    this.root = this.#listable(resolve(dirname(fromFileUrl(import.meta.url)), "../.."));
    this.runDir = this.#listable(runDir);
    const keys = relative(fromFileUrl(ROOT), fromFileUrl(TRUSTED_KEYS));
    this.trust = [`${this.root}/${keys}`, ...trust.map((file) => this.#listable(resolve(file)))];
  }

  /** A path that can stand in a list of Deno's permissions, which has no way to write a comma: another name for it. */
  #listable(path: string): string {
    if (!path.includes(",")) return path;
    this.#aliases ??= Deno.makeTempDirSync({ prefix: "ringfabric-" });
    const alias = `${this.#aliases}/${this.#aliasCount++}`;
    Deno.symlinkSync(path, alias);
    return alias;
  }

  /** Removes what was made for paths with commas. */
  close(): void {
    if (this.#aliases !== undefined) Deno.removeSync(this.#aliases, { recursive: true });
  }

  /** What a service listens on. */
  listen(offset: number): string {
    return `${this.#host.includes(":") ? `[${this.#host}]` : this.#host}:${this.#port + offset}`;
  }

  /** Where another service finds it. */
  at(offset: number): string {
    const host = this.#host === "0.0.0.0" ? "127.0.0.1" : this.#host === "::" ? "[::1]" : undefined;
    return host ? `${host}:${this.#port + offset}` : this.listen(offset);
  }

  /** What a service or a guest may read and write: the checkout is read, and of the run directory what it has there. */
  files(name: keyof typeof OWN_FILES | "guest"): string[] {
    const all = (names: readonly string[]) => names.map((name) => `${this.runDir}/${name}`);
    const own = name === "guest" ? [] : OWN_FILES[name];
    const read = [this.root, ...this.trust];
    // Sockets of ports have directories of their own, and what is damaged is put aside by the side of its old place.
    if (name === "pf" || name === "vhost") {
      const { [name]: _, ...others } = OWN_FILES;
      const denied = Object.values(others).flat();
      return [
        `--allow-read=${[...read, this.runDir].join(",")}`,
        `--deny-read=${all([...denied, "token"]).join(",")}`,
        `--allow-write=${this.runDir}`,
        `--deny-write=${all([...denied, ...UPS_FILES]).join(",")}`,
        "--allow-env",
      ];
    }
    return [
      `--allow-read=${[...read, ...all([...own, "access.json"])].join(",")}`,
      // The run directory may lie in the checkout.
      `--deny-read=${all(["token"]).join(",")}`,
      ...(own.length > 0 ? [`--allow-write=${all(own).join(",")}`] : []),
      "--allow-env",
    ];
  }
}

/** Where this machine reaches a service that listens on every address. */
export function reachable(url: string): string {
  return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
}
