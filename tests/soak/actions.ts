/**
 * What the soak does to a fabric under its streams, and what each may cost. To add an action, add a line to ACTIONS.
 */
import { createMemfd } from "../../shared/os/mod.ts";
import { FrontEnd } from "../support/front_end.ts";
import type { Random } from "../fuzz/random.ts";
import { UmlGuest } from "../support/uml.ts";
import { until } from "../support/wait.ts";
import type { Cost } from "./cost.ts";
import { GUESTS, type ModeName, MODES, PAIRS, type ServiceName, SERVICES, SPARE_VFS, type World } from "./world.ts";

/** One thing that is to be done, with everything that was drawn by lot. */
export interface Deed {
  /** What it is, with its particulars, for the log. */
  text: string;
  /** Does it, and says what it may cost. */
  run(cost: Cost): Promise<void>;
}

/** A kind of thing to do. */
export interface Action {
  name: string;
  /** How often it is done, beside the others. */
  weight: number;
  /** Whether it can be done here. */
  isPossible?(world: World): boolean;
  plan(world: World, random: Random): Deed;
}

const FREEZE_MS_MAX = 600;
const CAPTURE_MS_MAX = 800;
/** Copies go to a VF that nobody is on, or out. */
const MIRRORS = ["in:4", "out:5", "both:4", "both:uplink"];
/** How long a policy is another one, and how long it may take to be the first again. */
const CHANGED_MS = 100;
const BACK_MS = 20_000;
/** A guest of User-Mode Linux has an address that no built-in guest has. */
const UML_ADDRESS = "10.0.9.9/16";

const hasStandbys = ({ hasStandbys }: World) => hasStandbys;

function killOf(name: ServiceName): Action {
  return {
    name: `kill ${name}`,
    weight: 2,
    plan: (world) => ({ text: "", run: (cost) => world.end(name, "active", cost) }),
  };
}

/** What is done to the two processes of a service. */
function toPair(name: ServiceName): Action[] {
  const action = (what: string, run: (world: World, cost: Cost) => Promise<void>): Action => ({
    name: `${what} ${name}`,
    weight: 1,
    isPossible: hasStandbys,
    plan: (world) => ({ text: "", run: (cost) => run(world, cost) }),
  });
  return [
    action("kill the standby of", (world, cost) => world.end(name, "standby", cost)),
    action("kill both processes of", (world, cost) => Promise.resolve(world.endPair(name, cost))),
    action("terminate", (world, cost) => world.end(name, "active", cost, "SIGTERM")),
  ];
}

/** pf and vf are restarted; the other two need somebody who stands by. */
function upgradeOf(name: ServiceName): Action {
  return {
    name: `upgrade ${name}`,
    weight: name === "nic" || name === "vhost" ? 2 : 1,
    isPossible: (world) => world.hasStandbys || name === "pf" || name === "vf",
    plan: (world) => ({ text: "", run: (cost) => world.upgrade(name, cost) }),
  };
}

/** Changes a policy and takes it back. */
function policy(name: string, loses: boolean, change: (random: Random) => [Patch, Patch]): Action {
  return {
    name: `policy: ${name}`,
    weight: 1,
    plan: (world, random) => {
      const vf = random.below(GUESTS);
      const [there, back] = change(random);
      const run = async (cost: Cost) => {
        if (loses) cost.mayLose(vf);
        try {
          await world.patch(vf, there);
          await new Promise((resolve) => setTimeout(resolve, CHANGED_MS));
        } finally {
          // The PF may have been killed meanwhile, with the change on disk.
          await until("the policy to be as it was", () => world.patch(vf, back).then(() => true, () => false), BACK_MS);
        }
      };
      return { text: `vf ${vf} ${JSON.stringify(there)}`, run };
    },
  };
}
type Patch = Record<string, unknown>;

function changeMode(world: World, random: Random): Deed {
  const vf = random.below(GUESTS);
  const name = random.pick(Object.keys(MODES) as ModeName[]);
  return { text: `vf ${vf} to ${name}`, run: (cost) => world.setMode(vf, name, cost) };
}

function killGuest(world: World, random: Random): Deed {
  const guest = random.below(GUESTS);
  return { text: `guest ${guest}`, run: (cost) => Promise.resolve(world.killGuest(guest, cost)) };
}

function freeze(world: World, random: Random): Deed {
  const [name, ms] = [random.pick(SERVICES), random.below(FREEZE_MS_MAX)];
  const role = random.chance(4) ? "standby" : "active";
  return { text: `the ${role} process of ${name} for ${ms} ms`, run: () => world.freeze(name, role, ms) };
}

/** A guest's VF gets something of the host behind it, or the uplink something else. */
function changeUplink(world: World, random: Random): Deed {
  const pool = random.pick(["nic", ...SPARE_VFS.map((vf) => `vfs/${vf}` as const)] as const);
  return { text: `${pool} to a file and back`, run: () => world.useUplink(pool) };
}

function capture(world: World, random: Random): Deed {
  const path = random.pick(["vfs/0/capture", "vfs/1/capture", "vfs/2/capture", "capture"]);
  const readMs = random.chance(2) ? 0 : random.below(CAPTURE_MS_MAX);
  return { text: `${path}, read for ${readMs} ms`, run: () => world.capture(path, readMs) };
}

function moveGuest(world: World, random: Random): Deed {
  const vf = random.below(GUESTS);
  return { text: `guest ${vf}`, run: (cost) => world.moveGuest(vf, cost) };
}

/** A front-end attaches, sends nothing, and is gone without a word: at any message of its handshake, or behind it. */
function vanish(world: World, random: Random): Deed {
  const [vf, format, steps] = [random.pick(SPARE_VFS), random.pick(["split", "packed"] as const), random.below(4)];
  const run = async () => {
    const bytes = 4 * 1024 ** 2;
    await using front = FrontEnd.connectAs(format, world.fabric.vf(vf).socket, {
      bytes,
      memory: createMemfd("soak-guest", bytes),
      queueSize: 64,
    });
    if (steps > 0) await front.negotiate();
    if (steps > 1) await front.shareMemory();
    for (let ring = 0; ring < steps - 1; ring++) await front.startVring(ring);
  };
  return { text: `${format}, vf ${vf}, after ${steps} steps`, run };
}

function hasUml(): boolean {
  try {
    return Deno.uid() === 0 && Deno.statSync("/usr/bin/linux.uml").isFile;
  } catch {
    return false;
  }
}

/** A Linux boots on a VF, reaches a built-in guest, and is killed. */
function bootLinux(world: World, random: Random): Deed {
  const vf = random.pick(SPARE_VFS);
  const run = async () => {
    await using linux = await UmlGuest.boot(world.fabric.vf(vf).socket);
    await linux.address(UML_ADDRESS);
    await linux.untilReaches(world.guest(0).ip);
    await linux.kill();
  };
  return { text: `vf ${vf}`, run };
}

/** Everything that is done. */
export const ACTIONS: readonly Action[] = [
  ...SERVICES.map(killOf),
  ...PAIRS.flatMap(toPair),
  ...SERVICES.map(upgradeOf),
  { name: "kill a guest", weight: 2, plan: killGuest },
  { name: "mode", weight: 6, plan: changeMode },
  policy("spoof check", false, () => [{ spoofCheck: false }, { spoofCheck: true }]),
  policy("trust", false, () => [{ trust: true }, { trust: false }]),
  policy("rate", false, (random) => [{ maxTxRate: 10 + random.below(90) }, { maxTxRate: 0 }]),
  policy("VLAN", true, (random) => [{ vlan: 1 + random.below(4094) }, { vlan: 0 }]),
  policy("link", true, () => [{ linkState: "disable" }, { linkState: "auto" }]),
  { name: "freeze a process", weight: 2, plan: freeze },
  policy("mirror", false, (random) => [{ mirror: random.pick(MIRRORS) }, { mirror: null }]),
  { name: "uplink", weight: 2, plan: changeUplink },
  { name: "capture", weight: 2, plan: capture },
  { name: "a guest moves away and back", weight: 2, isPossible: ({ far }) => far !== undefined, plan: moveGuest },
  {
    name: "a vport comes and goes",
    weight: 1,
    plan: (world) => ({ text: "", run: () => world.comeAndGoVport() }),
  },
  { name: "a front-end vanishes", weight: 2, plan: vanish },
  { name: "Linux boots and is killed", weight: 1, isPossible: hasUml, plan: bootLinux },
];

/** Actions that may come in the middle of another one. */
export const INTERRUPTIONS: readonly Action[] = SERVICES.map(killOf);
