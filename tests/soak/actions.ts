/**
 * What the soak does to a fabric under its streams, and what each may cost. To add an action, add a line to ACTIONS.
 */
import { createMemfd } from "../../shared/os/mod.ts";
import { FrontEnd } from "../support/front_end.ts";
import type { Random } from "../fuzz/random.ts";
import { UmlGuest } from "../support/uml.ts";
import { until } from "../support/wait.ts";
import { GUESTS, type ServiceName, SERVICES, SPARE_VFS, type World } from "./world.ts";

/** What an action may do to the streams. */
export interface Cost {
  /** Whether frames may be lost. */
  loses: boolean;
  /** Guests that are killed: their streams do not count. */
  kills: readonly number[];
}

/** One thing that is to be done, with everything that was drawn by lot. */
export interface Deed {
  /** What it is, with its particulars, for the log. */
  text: string;
  cost: Cost;
  run(): Promise<void>;
}

/** A kind of thing to do. */
export interface Action {
  name: string;
  /** How often it is done, beside the others. */
  weight: number;
  /** Whether it can be done here. */
  isPossible?(): boolean;
  plan(world: World, random: Random): Deed;
}

const FREE: Cost = { loses: false, kills: [] };
const LOSES: Cost = { loses: true, kills: [] };
const FREEZE_MS_MAX = 600;
/** How long a policy is another one, and how long it may take to be the first again. */
const CHANGED_MS = 100;
const BACK_MS = 20_000;
/** A guest of User-Mode Linux has an address that no built-in guest has. */
const UML_ADDRESS = "10.0.9.9/16";

const MODES: Record<string, Record<string, unknown>> = {
  "copy": { mode: "emulated", dataPath: "copy" },
  "zero copy": { mode: "emulated", dataPath: "zerocopy" },
  "header split": { mode: "emulated", dataPath: "headersplit" },
  "plugin advanced": { mode: "passthrough", plugin: "advanced" },
  "plugin virtio": { mode: "passthrough", plugin: "virtio" },
};

function killOf(name: ServiceName): Action {
  const cost = name === "nic" || name === "vhost" ? LOSES : FREE;
  return {
    name: `kill ${name}`,
    weight: 2,
    plan: (world) => ({ text: name, cost, run: () => Promise.resolve(world.killService(name)) }),
  };
}

/** Changes a policy and takes it back. */
function policy(name: string, cost: Cost, change: (random: Random) => [Patch, Patch]): Action {
  return {
    name: `policy: ${name}`,
    weight: 1,
    plan: (world, random) => {
      const vf = random.below(GUESTS);
      const [there, back] = change(random);
      const run = async () => {
        try {
          await world.patch(vf, there);
          await new Promise((resolve) => setTimeout(resolve, CHANGED_MS));
        } finally {
          // The PF may have been killed meanwhile, with the change on disk.
          await until("the policy to be as it was", () => world.patch(vf, back).then(() => true, () => false), BACK_MS);
        }
      };
      return { text: `vf ${vf} ${JSON.stringify(there)}`, cost, run };
    },
  };
}
type Patch = Record<string, unknown>;

function changeMode(world: World, random: Random): Deed {
  const vf = random.below(GUESTS);
  const name = random.pick(Object.keys(MODES));
  return { text: `vf ${vf} to ${name}`, cost: FREE, run: () => world.setMode(vf, MODES[name] ?? {}) };
}

function killGuest(world: World, random: Random): Deed {
  const guest = random.below(GUESTS);
  const cost = { ...FREE, kills: [guest] };
  return { text: `guest ${guest}`, cost, run: () => Promise.resolve(world.killGuest(guest)) };
}

function freeze(world: World, random: Random): Deed {
  const [name, ms] = [random.pick(SERVICES), random.below(FREEZE_MS_MAX)];
  return { text: `${name} for ${ms} ms`, cost: FREE, run: () => world.freeze(name, ms) };
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
  return { text: `${format}, vf ${vf}, after ${steps} steps`, cost: FREE, run };
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
  return { text: `vf ${vf}`, cost: FREE, run };
}

/** Everything that is done. */
export const ACTIONS: readonly Action[] = [
  ...SERVICES.map(killOf),
  { name: "kill a guest", weight: 2, plan: killGuest },
  { name: "mode", weight: 6, plan: changeMode },
  policy("spoof check", FREE, () => [{ spoofCheck: false }, { spoofCheck: true }]),
  policy("trust", FREE, () => [{ trust: true }, { trust: false }]),
  policy("rate", FREE, (random) => [{ maxTxRate: 10 + random.below(90) }, { maxTxRate: 0 }]),
  policy("VLAN", LOSES, (random) => [{ vlan: 1 + random.below(4094) }, { vlan: 0 }]),
  policy("link", LOSES, () => [{ linkState: "disable" }, { linkState: "auto" }]),
  { name: "freeze a service", weight: 2, plan: freeze },
  {
    name: "uplink",
    weight: 2,
    plan: (world) => ({ text: "pcap, then none", cost: FREE, run: () => world.useUplink() }),
  },
  {
    name: "a vport comes and goes",
    weight: 1,
    plan: (world) => ({ text: "", cost: FREE, run: () => world.comeAndGoVport() }),
  },
  { name: "a front-end vanishes", weight: 2, plan: vanish },
  { name: "Linux boots and is killed", weight: 1, isPossible: hasUml, plan: bootLinux },
];

/** Actions that may come in the middle of another one. */
export const INTERRUPTIONS: readonly Action[] = SERVICES.map(killOf);
