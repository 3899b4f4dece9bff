/** How long the engine stands still for one change of one VF's policy, when all VFs have full lists of VLANs. */
import { defaultPolicy, type Programme } from "../../../shared/api/mod.ts";
import { median } from "../stats.ts";
import type { Row } from "./row.ts";
import { type Kit, World } from "./world.ts";

/** Changes of VF 0's limit, and the pauses they take. */
function pauses(kit: Kit, vfs: number, ms: number): number[] {
  const { rig } = new World(kit, vfs);
  const took: number[] = [];
  const pools = new kit.engine.Pools({
    view: rig.view,
    arena: { buffer: rig.view.buffer as unknown as SharedArrayBuffer },
    wasm: rig.wasm,
    between<T>(change: () => T): T {
      const begin = performance.now();
      const result = change();
      took.push(performance.now() - begin);
      return result;
    },
  });
  const trunk = Array.from({ length: 4094 }, (_, i) => i + 1);
  const programme: Programme = {
    ...{ switchMode: "veb", link: "up", pfMac: "02:00:00:00:00:ff", vports: [] },
    vfs: Array.from({ length: vfs }, (_, vf) => (
      { ...defaultPolicy(kit.rig.rigMac(vf)), fallback: "none", trunk }
    )),
  };
  pools.apply(programme);
  const [first, ...others] = programme.vfs;
  const totals: number[] = [];
  for (const end = performance.now() + ms; performance.now() < end || totals.length < 3;) {
    took.length = 0;
    if (first) pools.apply({ ...programme, vfs: [{ ...first, maxTxRate: 100 + totals.length }, ...others] });
    totals.push(took.reduce((sum, one) => sum + one, 0));
  }
  return totals;
}

/** The row. */
export function patchPause(vfs: number): Row {
  return {
    name: `pause of one PATCH, ${vfs} VFs with full trunk lists`,
    unit: "ms",
    goal: { atMost: 0.2 },
    run: (kit, { ms }) => median(pauses(kit, vfs, ms)),
  };
}
