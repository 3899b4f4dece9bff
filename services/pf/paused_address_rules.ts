/** Which address a VF has whose guest is moved away. Pure. */
import type { Filter, PausedAddress } from "../../shared/api/mod.ts";
import type { PausedPair, Settings } from "./store.ts";

/** The settings with a VF's pair, or without one. */
export function withPair(settings: Settings, vf: number, pair: PausedPair | undefined): Settings {
  const { [vf]: _, ...others } = settings.pausedAddresses;
  return { ...settings, pausedAddresses: pair ? { ...others, [vf]: pair } : others };
}

/** Whether that a VF gets `to` in place of the address that it has now is on disk. */
export function isForeseen(settings: Settings, vf: number, to: PausedAddress): boolean {
  const pair = settings.pausedAddresses[vf];
  return pair?.to.mac === to.mac && pair.to.macFixed === to.macFixed && pair.from.mac === settings.vfs[vf]?.mac;
}

/**
 * What holds after a PF has ended with pairs. It puts the second address in force first and writes that down at once, so
 * if it has ended in between, the NIC knows: the VF has the second address if the NIC has it. A NIC that has ended too
 * has neither, and the guest has most likely not stood still.
 */
export function settled(settings: Settings, filters: readonly Filter[]): Settings {
  const vfs = settings.vfs.map((policy, vf) => {
    const pair = settings.pausedAddresses[vf];
    // What is written holds: the NIC knows better only as long as that is the first address.
    if (policy.mac !== pair?.from.mac) return policy;
    const has = (wanted: string) =>
      filters.some(({ mac, pool, source }) => mac === wanted && pool === vf && source === "static");
    // The VF may have the second one beside its own, as one of its allowedMacs.
    return has(pair.to.mac) && !has(pair.from.mac) ? { ...policy, ...pair.to } : policy;
  });
  return { ...settings, vfs, pausedAddresses: {} };
}
