/** Which mirrors there may be: who gets copies is there, is somebody else, and is nobody's guest by chance. */
import { ApiError, mirrorOf } from "../../shared/api/mod.ts";
import type { Settings } from "./store.ts";

/** Throws if VF `vf` cannot have the mirror that it has in `settings`. */
export function mustMirrorLawfully({ vfs, vports }: Settings, vf: number): void {
  const to = mirrorOf(vfs[vf]?.mirror)?.to;
  if (to === undefined || to === "uplink") return;
  if (to === vf) throw new ApiError(422, `cannot mirror vf ${vf} to itself`, "mirror");
  if (to >= vfs.length) throw new ApiError(422, `cannot mirror vf ${vf} to vf ${to}: there is none`, "mirror");
  const holder = vports.find((vport) => vport.vf === to);
  if (!holder) return;
  throw new ApiError(
    409,
    `cannot mirror vf ${vf} to vf ${to}: it is allotted to the guest of vport ${holder.id}`,
    "mirror",
  );
}

/** Whether a VF's frames are copied, or copies go to it: then it is not for a guest that needs any VF. */
export function isMirrored({ vfs }: Settings, vf: number): boolean {
  return (vfs[vf]?.mirror ?? null) !== null || vfs.some(({ mirror }) => mirrorOf(mirror)?.to === vf);
}

/** Throws if a VF that others' copies go to would be removed, leaving `count` VFs. */
export function mustKeepMirrors({ vfs }: Settings, count: number): void {
  const targets = vfs.slice(0, count).map(({ mirror }) => mirrorOf(mirror)?.to);
  const from = targets.findIndex((to) => typeof to === "number" && to >= count);
  if (from < 0) return;
  throw new ApiError(
    409,
    `vf ${targets[from]} cannot be removed: vf ${from} is mirrored to it; set mirror first`,
    "numVfs",
  );
}
