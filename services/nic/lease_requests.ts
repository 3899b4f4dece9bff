/** What a lease's owner asks that is more than its tenancy: queues that go on where others were, the dirty log. */
import { DeviceRefusal, type Request } from "../../shared/device/mod.ts";
import { type LogRequest, ringName, type Tenants } from "../../shared/engine/mod.ts";
import type { Fd } from "../../shared/os/mod.ts";
import type { Programme } from "../../shared/api/nic.ts";
import type { Lease } from "./lease.ts";

/**
 * Starts a queue. After a take-over it goes on where it was, whatever the new owner believes: the queue went on after
 * the old one had died.
 */
export function startQueue(
  { tenants, policies }: { tenants: Tenants; policies: Programme["vfs"] },
  lease: Lease,
  request: Extract<Request, { op: "queueStart" }>,
  fds: Fd[],
): void {
  const wanted = [request.kick, request.call].filter((there) => there).length;
  if (fds.length !== wanted) {
    throw new DeviceRefusal("fd-count", `queueStart announced ${wanted} descriptors and brought ${fds.length}`);
  }
  if (request.flavour === "advanced" && !lease.queues.hasRegisters) {
    throw new DeviceRefusal("no-registers", "an advanced queue needs doorbells: ask for region registers first");
  }
  if (request.flavour === "advanced" && lease.log.isOn) {
    throw new DeviceRefusal("not-logged", "the guest moves, and writes into advanced rings are not logged");
  }
  // Emulated mode is the hypervisor's own driver; a guest finds the hardware that the PF presents to it.
  const hardware = policies[lease.pool]?.hardware ?? "any";
  const flavour = request.flavour === "advanced" ? "advanced" : "virtio";
  if (lease.mode === "passthrough" && hardware !== "any" && hardware !== flavour) {
    throw new DeviceRefusal("wrong-hardware", `vf ${lease.pool} presents ${hardware} rings, not ${flavour} ones`);
  }
  const ring = ringName(request.index, request.desc);
  // A split ring says itself where it is, and an advanced one's driver has died with its memory.
  const kept = request.flavour === "packed" ? lease.inherited.get(ring) : undefined;
  const kick = request.kick ? fds[0] : undefined;
  const call = request.call ? fds[request.kick ? 1 : 0] : undefined;
  // It may be another guest's, or its driver may have begun it anew: then it does not bear the old position out.
  tenants.startQueue(lease, { ...request, ...(kept === undefined ? {} : { kept }) }, [kick, call]);
  // The queue owns them now.
  fds.length = 0;
  lease.inherited.delete(ring);
}

/** The dirty log is for those who move the guest; one that drives its VF itself leaves it before it moves. */
export function serveLog(
  tenants: Tenants,
  lease: Lease,
  request: LogRequest,
  fds: readonly Fd[],
): Record<string, unknown> {
  if (lease.byGuest) throw new DeviceRefusal("not-allowed", "a guest leaves its VF before it moves");
  return tenants.serveLog(lease, request, fds);
}
