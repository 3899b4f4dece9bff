/** The filter table as the API shows it: read while the engine runs, which may learn an entry or move one meanwhile. */
import {
  FILTER_COUNT,
  FILTER_F_LEARNED,
  FILTER_FLAGS,
  FILTER_KEY,
  FILTER_POOL,
  FILTER_SEEN_SECONDS,
  FILTER_STRIDE,
  FILTERS,
  VLAN_ANY,
  VLAN_KEY_AD,
} from "../layout/nic.ts";
import type { Filter } from "../api/nic.ts";
import { macFromNumber, poolName } from "./names.ts";

/** All entries, by MAC. */
export function listFilters(view: DataView, nowSeconds: number): Filter[] {
  const found: Filter[] = [];
  for (let at = FILTERS; at < FILTERS + FILTER_COUNT * FILTER_STRIDE; at += FILTER_STRIDE) {
    // The valid bit is in the upper half: most slots are empty, and cost no BigInt.
    if (view.getUint32(at + FILTER_KEY + 4, true) === 0) continue;
    const key = view.getBigUint64(at + FILTER_KEY, true);
    const vlan = Number((key >> 48n) & 0x1fffn);
    const learned = (view.getUint16(at + FILTER_FLAGS, true) & FILTER_F_LEARNED) !== 0;
    found.push({
      mac: macFromNumber(key),
      vlan: vlan === VLAN_ANY ? "any" : vlan & 0xfff,
      proto: vlan !== VLAN_ANY && vlan & VLAN_KEY_AD ? "802.1ad" : "802.1Q",
      pool: poolName(view.getUint16(at + FILTER_POOL, true)),
      source: learned ? "learned" : "static",
      ageSeconds: learned ? Math.max(0, nowSeconds - view.getUint32(at + FILTER_SEEN_SECONDS, true)) : 0,
    });
  }
  return found.sort((a, b) => a.mac < b.mac ? -1 : 1);
}
