/** Guests of each ring format, and of several beside each other, on a switch: one table of tests runs over all mixes. */
import type { VfPolicy } from "../../shared/api/mod.ts";
import { type AnyRigGuest, EngineRig, FORMATS } from "./engine_rig.ts";
import type { FormatName } from "./formats.ts";

/** A rig and its guests; the uplink's comes last. */
export interface Bench {
  rig: EngineRig;
  guests: AnyRigGuest[];
}

/** Formats of the guests of VFs 0, 1, 2 … by the mix that is tested, and over again. */
const MIXES: Record<string, readonly FormatName[]> = {
  ...Object.fromEntries(FORMATS.map((format) => [format, [format]])),
  "split and advanced": ["split", "advanced"],
  "packed and split": ["packed", "split"],
  "all formats": ["packed", "advanced", "split in-order", "packed in-order", "split"],
};
/** Only packed rings may have any size. */
const SIZES = { packed: 100, advanced: 128, split: 64 };
let formats: readonly FormatName[] = ["split"];

/** A test for each mix. */
export function test(name: string, fn: () => void | Promise<void>): void {
  for (const [mix, chosen] of Object.entries(MIXES)) {
    Deno.test(`${name} (${mix})`, async () => {
      formats = chosen;
      await fn();
    });
  }
}

/** The format of VF `vf`'s guest. */
export const formatOf = (vf: number) => formats[vf % formats.length] as FormatName;

/** Attaches a guest to VF `vf`. */
export function attach(
  rig: EngineRig,
  vf: number,
  options: { queueSize?: number; queuePairs?: number } = {},
  format = formatOf(vf),
): AnyRigGuest {
  const queueSize = SIZES[format.split(" ")[0] as keyof typeof SIZES];
  return rig.attachAs(format, vf, { queueSize, ...options });
}

/** A rig with `vfs` attached guests, each with receive buffers. */
export function rig(vfs: number, policies: Record<number, Partial<VfPolicy>> = {}, uplink = false): Bench {
  const made = new EngineRig(vfs, policies);
  const guests = Array.from({ length: vfs }, (_, vf) => attach(made, vf));
  if (uplink) guests.push(made.attachUplink());
  for (const guest of guests) guest.fill(32);
  return { rig: made, guests };
}

/** Sends one frame from guest `from` and answers what every guest received. */
export function exchange({ rig, guests }: Bench, from: number, bytes: Uint8Array): Uint8Array[][] {
  guests[from]?.send([bytes]);
  rig.run();
  rig.checkCanaries();
  return guests.map((guest) => guest.receive());
}
