/**
 * The fabric's tokens. The operator's is in the run directory, readable by its owner alone; services get one of their
 * own, and each built-in guest one that is good for its port. What the services check against is a file of hashes.
 */
import {
  AccessFile,
  accessFile,
  hashToken,
  newToken,
  type TokenEntry,
  tokenFile,
  withTokensLocked,
  writePrivately,
} from "../../shared/api/mod.ts";

/** The tokens of a fabric that runs. */
export interface FabricTokens {
  /** What a person shows. */
  operator: string;
  /** What services show each other. */
  service: string;
  /** What a built-in guest and its hypervisor show each other, by the guest's port. */
  guests: Map<string, string>;
}

function readEntries(path: string): TokenEntry[] {
  try {
    return AccessFile.parse(JSON.parse(Deno.readTextFileSync(path))).tokens;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw new Error(`Cannot read ${path}: ${(error as Error).message}; remove it, and tokens of others with it`);
  }
}

/**
 * Makes or finds the tokens of the fabric in `runDir`. The operator's token stays from run to run; `own`, from
 * RINGFABRIC_TOKEN, takes its place and is not written down. Tokens of others stay too.
 */
export function prepareTokens(runDir: string, own: string | undefined, guestCount: number): FabricTokens {
  const service = newToken();
  const operator = withTokensLocked(runDir, () => {
    const operator = own ?? keptOperator(tokenFile(runDir));
    if (own !== undefined) forget(tokenFile(runDir));
    const entries: TokenEntry[] = [
      { name: "operator", role: "operator", sha256: hashToken(operator) },
      { name: "services", role: "service", sha256: hashToken(service) },
      ...readEntries(accessFile(runDir)).filter(isOthers),
    ];
    writePrivately(accessFile(runDir), JSON.stringify({ tokens: entries }, null, 2));
    return operator;
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
  withTokensLocked(runDir, () => {
    const others = readEntries(accessFile(runDir)).filter(isOthers);
    if (others.length === 0) forget(accessFile(runDir));
    else writePrivately(accessFile(runDir), JSON.stringify({ tokens: others }, null, 2));
  });
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
