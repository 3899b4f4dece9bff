/** Where the services of a fabric are, from outside and from each other. */
import { dirname, fromFileUrl, resolve } from "@std/path";
import { TRUSTED_KEYS } from "../../shared/wasm/load.ts";
import type { Options } from "./options.ts";

/** The services' ports, from the PF's on; guests' from GUESTS on. */
export const PF = 0;
export const VHOST = 1;
export const VF = 2;
export const NIC = 3;
export const GUESTS = 10;

/** Addresses and files of a fabric. */
export class Places {
  readonly root = resolve(dirname(new URL(import.meta.url).pathname), "../..");
  readonly runDir: string;
  readonly trust: string;
  readonly #port: number;
  readonly #host: string;

  constructor({ host, port, runDir, trust }: Options) {
    this.#host = host;
    this.#port = port;
    this.runDir = runDir;
    this.trust = [fromFileUrl(TRUSTED_KEYS), ...(trust ? [resolve(trust)] : [])].join(",");
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

  /** What every service may read and write. */
  get files(): string[] {
    return [`--allow-read=${this.root},${this.runDir},${this.trust}`, `--allow-write=${this.runDir}`, "--allow-env"];
  }
}

/** Where this machine reaches a service that listens on every address. */
export function reachable(url: string): string {
  return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:");
}
