/**
 * Limits on what one guest may have, as options of the command line: `up` passes them on to the services whose engines
 * serve guests (shared/engine/limits.ts has them in force).
 */
import { type Command, Option } from "commander";
import { wholeNumber } from "./options.ts";

/** Sixteen of the longest rings. */
export const RING_ENTRIES_MAX = 524_288;

interface Limit {
  flags: string;
  says: string;
  min: number;
  max: number;
  begins: number;
}

const LIMITS: readonly Limit[] = [
  { flags: "--vf-memory-mib <n>", says: "memory that one guest may map", min: 2, max: 4096, begins: 2048 },
  {
    ...{ flags: "--vf-receives <n>", says: "entries that one guest's receive rings may have together" },
    // As many as any device may have (virtio 1.2 §2.7): who has fewer guests, or trusts them less, says less.
    ...{ min: 2, max: RING_ENTRIES_MAX, begins: RING_ENTRIES_MAX },
  },
  {
    ...{ flags: "--vf-submissions <n>", says: "entries that one guest's transmit rings may have together" },
    ...{ min: 2, max: RING_ENTRIES_MAX, begins: RING_ENTRIES_MAX },
  },
  {
    ...{ flags: "--vf-buffer-kib <n>", says: "frames that may wait for one guest which has no room for them" },
    // A mode change's worth at full speed, and what a TCP connection has on its way to a guest that does not run just now.
    ...{ min: 0, max: 16_384, begins: 4096 },
  },
];

/** What was said of limits; `up` hands on what was said, and services have something of each. */
export interface LimitOptions {
  vfMemoryMib?: number;
  vfReceives?: number;
  vfSubmissions?: number;
  vfBufferKib?: number;
  sealedOnly: boolean;
}

/** Adds the options to a command. What is not said has no value, if the services are to say what it is. */
export function limitCommand<C extends Command>(command: C, areServices: boolean): C {
  for (const { flags, says, min, max, begins } of LIMITS) {
    const option = new Option(flags, areServices ? says : `${says} (default: ${begins})`);
    command.addOption(option.argParser(wholeNumber(min, max)).default(areServices ? begins : undefined));
  }
  return command.option("--sealed-only", "refuse guests whose memory could be truncated", false) as C;
}

/** The arguments that say the same to a service. */
export function limitArguments(options: LimitOptions): string[] {
  const said = [options.vfMemoryMib, options.vfReceives, options.vfSubmissions, options.vfBufferKib];
  const args = LIMITS.flatMap(({ flags }, i) => said[i] === undefined ? [] : [flags.replace(" <n>", ""), `${said[i]}`]);
  return options.sealedOnly ? [...args, "--sealed-only"] : args;
}

/** The limits of a service that has something of each. */
export function limitsOf({ vfMemoryMib, vfReceives, vfSubmissions, vfBufferKib, sealedOnly }: Required<LimitOptions>) {
  return {
    bytesMax: vfMemoryMib * 1024 ** 2,
    receivesMax: vfReceives,
    submissionsMax: vfSubmissions,
    bufferBytesMax: vfBufferKib * 1024,
    sealedOnly,
  };
}
