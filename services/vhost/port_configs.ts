/** How ports were set up, in a file, so that a restart does not forget it. */
import { resolve } from "@std/path";
import { z } from "zod";
import { isNewFabric, log, oneLine, PortState } from "../../shared/api/mod.ts";
import type { PortConfig } from "./port.ts";
import type { PortName } from "./port_context.ts";

/** What is kept of ports that were changed. */
const Kept = z.record(
  z.string(),
  PortState.pick({ role: true, path: true, dataPath: true, emulatedPath: true }),
);

/** Why a port may not connect to a front-end's socket at `path`, if it may not: those are below `dirs`. */
export function pathFault(dirs: readonly string[], path: string): string | undefined {
  if (dirs.some((dir) => resolve(path).startsWith(`${dir}/`))) return undefined;
  const where = dirs.join(" or ");
  return `cannot connect to ${path}: front-ends' sockets are below ${where}; move it, or say up --front-ends DIR`;
}

/** What is kept of the ports of one run directory. */
export class PortConfigs {
  readonly #file: string;
  #configs: Record<string, PortConfig> = {};

  constructor(runDir: string) {
    this.#file = `${runDir}/vhost-ports.json`;
  }

  /** Goes on with what the last service has left. `isNew`: in a fabric that is a new one. */
  read(isNew = isNewFabric()): void {
    this.#configs = this.#read(isNew);
  }

  /** What the last service has left. A file that cannot be read is put aside: ports begin as new ones do. */
  #read(isNew: boolean): Record<string, PortConfig> {
    try {
      const kept = Kept.parse(JSON.parse(Deno.readTextFileSync(this.#file)));
      if (!isNew) return kept;
      // The data path was that of a guest which is gone. How a port gets its front-ends is the operator's word, and stays.
      return Object.fromEntries(Object.entries(kept).filter(([, { role }]) => role === "client"));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return {};
      const aside = `${this.#file}.damaged`;
      Deno.renameSync(this.#file, aside);
      log("error", "vhost", `cannot read ${this.#file} (${oneLine(error)}): it is ${aside} now, ports begin anew`);
      return {};
    }
  }

  of(name: PortName): PortConfig | undefined {
    return this.#configs[String(name)];
  }

  /** Keeps a port's configuration on disk. */
  async keep(name: PortName, config: PortConfig): Promise<void> {
    this.#configs[String(name)] = config;
    await Deno.writeTextFile(`${this.#file}.new`, JSON.stringify(this.#configs));
    await Deno.rename(`${this.#file}.new`, this.#file);
  }
}
