/**
 * Which mirrors there may be: who gets copies is there, is somebody else, and is nobody's guest by chance. A copy stays
 * in its switch: VFs and the PF's pool are the NIC's, vports the software switch's.
 */
import { ApiError, mirrorOf, type Vport } from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

/** Throws if `who` cannot have `mirror`, which names a VF or the uplink, in `settings`. */
function mustNameTarget({ vfs, vports }: Settings, mirror: string | null, field: string, who: string): void {
  const to = mirrorOf(mirror)?.to;
  if (to === undefined || to === "uplink") return;
  if (to >= vfs.length) throw new ApiError(422, `cannot mirror ${who} to vf ${to}: there is none`, field);
  const holder = vports.find((vport) => vport.vf === to);
  if (!holder) return;
  throw new ApiError(
    409,
    `cannot mirror ${who} to vf ${to}: it is allotted to the guest of vport ${holder.id}`,
    field,
  );
}

/** Throws if VF `vf` cannot have the mirror that it has in `settings`. */
export function mustMirrorLawfully(settings: Settings, vf: number): void {
  const mirror = settings.vfs[vf]?.mirror ?? null;
  if (mirrorOf(mirror)?.to === vf) throw new ApiError(422, `cannot mirror vf ${vf} to itself`, "mirror");
  mustNameTarget(settings, mirror, "mirror", `vf ${vf}`);
}

/** Throws if the PF's pool cannot have the mirror that it has in `settings`. */
export function mustMirrorPfLawfully(settings: Settings): void {
  mustNameTarget(settings, settings.pfMirror, "pfMirror", "the PF's pool");
}

/** Throws if vport `id` cannot have the mirror that it has in `settings`. */
export function mustMirrorVportLawfully({ vports }: Settings, id: number): void {
  const mine = vports.find((vport) => vport.id === id);
  const to = mirrorOf(mine?.mirror)?.to;
  if (!mine || to === undefined) return;
  if (to === id) throw new ApiError(422, `cannot mirror vport ${id} to itself`, "mirror");
  const target = vports.find((vport) => vport.id === to);
  if (!target) throw new ApiError(422, `cannot mirror vport ${id} to vport ${to}: there is none`, "mirror");
  for (const vport of [mine, target]) {
    if (vport.vf === null) continue;
    const remedy = `put its guest into emulated mode first (fabric vport mode ${vport.id} emulated)`;
    const detail =
      `cannot mirror vport ${id} to vport ${to}: vport ${vport.id} has vf ${vport.vf}, past the software ` +
      `switch; ${remedy}`;
    throw new ApiError(409, detail, "mirror", "vf-allotted");
  }
}

/** Whether a VF's frames are copied, or copies go to it: then it is not for a guest that needs any VF. */
export function isMirrored({ vfs, pfMirror }: Settings, vf: number): boolean {
  return (vfs[vf]?.mirror ?? null) !== null || mirrorOf(pfMirror)?.to === vf ||
    vfs.some(({ mirror }) => mirrorOf(mirror)?.to === vf);
}

/** Who is mirrored to vport `id`. */
function mirroredTo({ vports }: Settings, id: number): Vport | undefined {
  return vports.find(({ mirror }) => mirrorOf(mirror)?.to === id);
}

/** Throws if vport `id` takes part in a mirror, which ends where its guest leaves the software switch. */
export function mustLeaveMirrors(settings: Settings, id: number): void {
  const mine = settings.vports.find((vport) => vport.id === id);
  const from = mine?.mirror ? mine : mirroredTo(settings, id);
  if (!from) return;
  const detail =
    `vport ${id} cannot be allotted a VF: vport ${from.id} has the mirror ${from.mirror}, which stays with ` +
    `the software switch; take it away first (fabric vport set ${from.id} mirror none)`;
  throw new ApiError(409, detail, "mode", "mirrored");
}

/** Throws if vport `id`, which is to be removed, gets copies. */
export function mustGetNoCopies(settings: Settings, id: number): void {
  const from = mirroredTo(settings, id);
  if (!from) return;
  const remedy = `set mirror first (fabric vport set ${from.id} mirror none)`;
  throw new ApiError(409, `vport ${id} cannot be removed: vport ${from.id} is mirrored to it; ${remedy}`, "id");
}

/** Throws if a VF that others' copies go to would be removed, leaving `count` VFs. */
export function mustKeepMirrors({ vfs, pfMirror }: Settings, count: number): void {
  const all = [
    ...vfs.slice(0, count).map(({ mirror }, vf) => ({ from: `vf ${vf}`, mirror, field: "mirror" })),
    { from: "the PF's pool", mirror: pfMirror, field: "pfMirror" },
  ];
  for (const { from, mirror, field } of all) {
    const to = mirrorOf(mirror)?.to;
    if (typeof to !== "number" || to < count) continue;
    throw new ApiError(409, `vf ${to} cannot be removed: ${from} is mirrored to it; set ${field} first`, "numVfs");
  }
}
