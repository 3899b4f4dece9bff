/**
 * The fabric's tokens. The operator's is in the run directory, readable by its owner alone; services get one of their
 * own, and each built-in guest one that is good for its port. What the services check against is a file of hashes.
 */
import { changeTokens, hashToken, newToken, type TokenEntry, tokenFile, writePrivately } from "../../shared/api/mod.ts";
import type { ServiceTokens } from "./processes.ts";

/** The tokens of a fabric that runs. */
export interface FabricTokens extends ServiceTokens {
  /** What a person shows. */
  operator: string;
}

/**
 * Makes or finds the tokens of the fabric in `runDir`. The operator's token stays from run to run; `own`, from
 * RINGFABRIC_TOKEN, takes its place and is not written down. Tokens of others stay too.
 */
export function prepareTokens(runDir: string, own: string | undefined, guestCount: number): FabricTokens {
  const service = newToken();
  let operator = own ?? "";
  changeTokens(runDir, (before) => {
    if (own === undefined) operator = keptOperator(tokenFile(runDir));
    else forget(tokenFile(runDir));
    return [
      { name: "operator", role: "operator", sha256: hashToken(operator) },
      { name: "services", role: "service", sha256: hashToken(service) },
      ...before.filter(isOthers),
    ];
  });
  // How many VFs there are is not known yet: guest N is on VF N or on a vport.
  const ports = Array.from({ length: guestCount }, (_, i) => [String(i), `vport${i}`]).flat();
  const guests = new Map(ports.map((port) => [port, newToken()]));
  return { operator, service, guests };
}

/** The operator's token of an earlier run, or a new one, in `file`. */
function keptOperator(file: string): string {
  try {
    return Deno.readTextFileSync(file).trim();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    const operator = newToken();
    writePrivately(file, `${operator}\n`);
    return operator;
  }
}

/** The end of a fabric: the tokens of its services are good for nothing. Those of others stay. */
export function dropTokens(runDir: string): void {
  changeTokens(runDir, (before) => before.filter(isOthers));
}

/** Whether a token is neither the operator's, which every `up` notes anew, nor its services'. */
function isOthers({ role, name }: TokenEntry): boolean {
  return role !== "service" && name !== "operator";
}

function forget(file: string): void {
  try {
    Deno.removeSync(file);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
