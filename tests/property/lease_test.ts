/**
 * Leases, tokens, holds and modes under everything that owners can do, in any order: only the current owner's memory is
 * in a VF's domain, only its queues run, nobody before it can do anything, and when all have gone nothing is left.
 */
import fc from "fast-check";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { LeaseRequest } from "../../services/nic/leases.ts";
import { DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { LeaseWorld } from "../support/lease_world.ts";
import { type Plan, PLANS } from "../support/test_shell.ts";
import type { Driver } from "../support/vf_driver.ts";
import { until } from "../support/wait.ts";

const VFS = 3;
const RUNS = 20;
const STEPS = 250;

const KINDS = [
  ...["passthrough", "passthrough", "passthrough", "emulated", "emulated", "force"],
  ...[
    "vhostAway",
    "takeBack",
    "reboot",
    "die",
    "plan",
    "tokenReuse",
    "staleVerb",
    "staleVerb",
    "holdAndRelease",
    "resume",
  ],
] as const;
type Kind = typeof KINDS[number];

interface Step {
  kind: Kind;
  vf: number;
  plan: Plan;
  /** Which old driver or token, and which verb. */
  which: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom(...KINDS),
  vf: fc.integer({ min: 0, max: VFS - 1 }),
  plan: fc.constantFrom(...PLANS),
  which: fc.nat(1000),
});

/** What a driver that has lost its VF may try. */
const REQUESTS: RequestInput[] = [
  { op: "resume" },
  { op: "detach" },
  { op: "queueStop", index: 0 },
  { op: "queueStop", index: 1 },
  { op: "dmaSet", regions: [] },
  { op: "queueCall", index: 0, call: false },
  { op: "region", name: "registers" },
];
const VERBS: ((driver: Driver) => Promise<unknown>)[] = [
  (driver) => driver.map(),
  (driver) => driver.start(0),
  (driver) => driver.start(1),
  (driver) => driver.attach(0, "passthrough"),
  ...REQUESTS.map((request) => (driver: Driver) => driver.client.request(request)),
];

/** The guest's driver that has a VF, by the NIC's word. */
function ownerOf(world: LeaseWorld, vf: number): Driver | undefined {
  const { driver } = world.nic.leaseOf(vf);
  if (driver === "nobody") return undefined;
  return driver === "guest" ? world.guests.find((guest) => guest.port === vf)?.driver : world.vhostOf(vf);
}

async function checkInvariant(world: LeaseWorld): Promise<void> {
  const owners = Array.from({ length: VFS }, (_, vf) => ownerOf(world, vf));
  for (const driver of world.drivers) {
    if (!driver.mustBeOwner || owners.includes(driver)) continue;
    await until(`the connection of ${driver.name} to end with its lease`, () => driver.ended);
  }
  for (let vf = 0; vf < VFS; vf++) {
    const owner = ownerOf(world, vf);
    const lease = world.nic.leases.of(vf);
    // Guests are called what the NIC sees of them, whatever they call themselves.
    const name = lease?.byGuest ? `guest (pid ${Deno.pid})` : owner?.name;
    assertEquals(lease?.owner, name, `who drives vf ${vf}`);
    if (lease) world.leases.add(lease);
    if (!owner || !lease) {
      assertEquals(world.nic.state().vfs[vf]?.memory.bytes, 0);
      continue;
    }
    assertEquals(lease.domain.regions.map(({ inode, iova }) => [inode, iova]), [[owner.inode, owner.iova]]);
    const rings = [...lease.queues.rings().keys()];
    assertEquals(rings.length, 2, rings.join(", "));
    for (const ring of rings) assert(ring.includes(` 0x${(owner.iova >> 32n).toString(16)}`), `${ring} is not its own`);
    // A path that is the guest's is driven by nobody else, and the other way round.
    assertEquals(world.nic.leaseOf(vf).driver, world.pathOf(vf) === "guest" ? "guest" : "hypervisor");
  }
}

async function take(world: LeaseWorld, { kind, vf, plan, which }: Step): Promise<void> {
  const guest = world.guests[vf];
  if (!guest) return;
  const emulated = async (force: boolean) => {
    const { mode } = await world.modes.set(vf, { mode: "emulated", ...(force ? { force } : {}) });
    assertEquals([mode, world.nic.leaseOf(vf).driver], ["emulated", "hypervisor"]);
  };
  const stale = world.drivers.filter((driver) =>
    driver !== ownerOf(world, 0) && driver !== ownerOf(world, 1) &&
    driver !== ownerOf(world, 2)
  );
  switch (kind) {
    case "plan":
      guest.plan = plan;
      return;
    case "passthrough": {
      const wasGuest = world.pathOf(vf) === "guest";
      const done = await world.modes.set(vf, { mode: "passthrough", plugin: "test" }).then(() => true, () => false);
      const takes = guest.plan === "honest" || guest.plan === "refusesToGiveBack";
      if (!wasGuest) assertEquals([done, world.nic.leaseOf(vf).driver], [takes, takes ? "guest" : "hypervisor"]);
      return;
    }
    case "emulated":
      return await emulated(false);
    case "force":
      return world.pathOf(vf) === "guest" ? await emulated(true) : undefined;
    case "vhostAway": {
      if (world.pathOf(vf) !== "guest") return;
      // The guest loses its VF all the same, and does not get it again.
      world.vhostIsAway = true;
      await assertRejects(() => world.modes.set(vf, { mode: "emulated" }));
      world.vhostIsAway = false;
      assertEquals(world.nic.leaseOf(vf).driver, "nobody");
      return await emulated(false);
    }
    case "takeBack":
      world.nic.takeBack(vf, "the operator took it back");
      return await world.modes.booted(vf);
    case "reboot":
      guest.mode = { mode: "emulated", connected: true };
      return await world.modes.booted(vf);
    case "die":
      if (world.nic.leaseOf(vf).driver !== "guest") return;
      guest.driver?.client.close();
      await until("the NIC to notice", () => world.nic.leaseOf(vf).driver === "nobody");
      guest.mode = { mode: "emulated", connected: true };
      return await world.modes.booted(vf);
    case "tokenReuse": {
      const kept = world.guests[which % VFS]?.kept;
      const rogue = world.driver("rogue", "passthrough.sock");
      const error = await assertRejects(() => rogue.attach(vf, "passthrough", kept));
      assertEquals((error as { code?: string }).code, "bad-token");
      return rogue.client.close();
    }
    case "staleVerb": {
      const driver = stale[which % Math.max(1, stale.length)];
      const verb = VERBS[which % VERBS.length];
      if (driver && verb) await assertRejects(() => verb(driver));
      // And were its connection still there, the NIC would refuse it all the same.
      for (const lease of world.leases) {
        if (world.nic.leases.of(lease.pool) === lease) continue;
        const request = REQUESTS[which % REQUESTS.length] as LeaseRequest;
        const refusal = assertThrows(() => world.nic.leases.serve(lease, request, [], []), DeviceRefusal);
        assertEquals((refusal as DeviceRefusal).code, "revoked");
      }
      return;
    }
    case "holdAndRelease":
      if (world.nic.leases.holds.of(vf)) return;
      guest.kept = world.nic.hold(vf, 10_000).token;
      return await world.nic.release(vf);
    case "resume":
      if (world.nic.leaseOf(vf).driver === "guest") await guest.driver?.client.request({ op: "resume" });
  }
}

Deno.test("only a VF's current owner has anything of it, whatever owners do; nothing is left", async () => {
  const world = await LeaseWorld.start(VFS);
  await using _ = world;
  await world.empty();
  const arena = world.nic.engine.arena.freeBytes;
  const descriptors = openDescriptors(Deno.pid);
  let taken = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: STEPS, maxLength: STEPS, size: "max" }), async (steps) => {
      await world.refill();
      try {
        for (const one of steps) {
          await take(world, one);
          await checkInvariant(world);
          taken++;
        }
      } finally {
        await world.empty();
      }
      assertEquals(world.nic.engine.arena.freeBytes, arena);
      await untilNoMoreDescriptors(descriptors);
    }),
    // The seed that is printed repeats a failure; making it smaller would take minutes.
    { numRuns: RUNS, endOnFailure: true },
  );
  assert(taken >= RUNS * STEPS);
});
