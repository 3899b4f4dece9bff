/**
 * A guest that its own hypervisor moves. The VFs swap their addresses while it stands still: its front-end has stopped its
 * rings here and is about to start them there. If they start here again, the hypervisor has given up: the VFs swap back.
 */
import { oneLine, Unanswered } from "../../shared/api/mod.ts";
import type { Context } from "./context.ts";
import { type Migration, runs, SwapFailure } from "./migration.ts";
import { type Moved, outcome, patience } from "./move_parts.ts";
import { type Pause, Pauses, within } from "./pauses.ts";
import { UsageError } from "./values.ts";

/** How often both VFs are looked at, before the swap and after it: seldom, since that takes both PFs' time. */
const LOOK_MS = 250;
const LOOK_AFTER_MS = 50;
/** How long the source's PF may take to say that its VF has given its address up, before it is asked to. */
const GIVE_MS = 100;

/** Moves the policy and the address of a guest; `timeout`: for how many seconds it is waited for. */
export async function moveForeign(migration: Migration, context: Context, timeout: number): Promise<Moved> {
  const { from } = migration;
  if (from.plugin !== undefined) {
    const leave = `fabric vf mode ${from.id} emulated`;
    throw new UsageError(`a plugin drives vf ${from.id} from inside its guest: leave it first, by ${leave}`);
  }
  using waiting = patience(
    timeout,
    `no guest ran at the target within ${timeout} s (--timeout): it goes on where it is`,
  );
  await migration.rehearse();
  using pauses = await Pauses.of(context.fabric, { vf: from.id, address: migration.before });
  try {
    const { id, socket } = migration.before;
    await migration.setMode(from, migration.before);
    // Last, since whoever moves the guest may wait for it.
    await migration.prepare();
    context.progress.say(`vf ${id} there is ready: move the guest to ${socket}`);
    await follow(migration, pauses, waiting.signal);
  } catch (error) {
    pauses[Symbol.dispose]();
    // The guest may run there by now: its policy is right, and whoever reads this gives it the address.
    if (error instanceof SwapFailure) throw error;
    if (migration.isSwapped) await migration.swapBack(oneLine(error));
    const undone = await Promise.allSettled([migration.keepAtSource(), undo(migration)]);
    const failures = undone.flatMap((step) => step.status === "rejected" ? [oneLine(step.reason)] : []);
    if (failures.length === 0) throw error;
    throw new UsageError(`${oneLine(error)}; and not all is as it was (${failures.join("; ")})`);
  }
  return await outcome(migration);
}

/** Makes the target VF what it was. */
async function undo(migration: Migration): Promise<void> {
  await migration.undo();
  await migration.setMode(migration.before, migration.from);
}

/** What comes of a request; undefined while its PF does not answer, such as one that is restarted: the guest moves on. */
async function ifAnswered<T>(request: Promise<T>): Promise<T | undefined> {
  try {
    return await request;
  } catch (error) {
    if (error instanceof Unanswered) return undefined;
    throw error;
  }
}

/** Looks at both VFs; answers nothing if the guest comes to stand still meanwhile: that does not wait. */
async function look({ source, target }: Migration, pauses: Pauses) {
  const both = Promise.all([ifAnswered(source.get()), ifAnswered(target.get())]);
  const seen = await Promise.race([both, pauses.news]);
  // It may fail when nobody looks any more.
  both.catch(() => {});
  return seen ?? [];
}

/** The guest stands still: the target gets its address as soon as the source has none of it. */
async function swap(migration: Migration, { sinceMs, given }: Pause): Promise<void> {
  await migration.swap({ isGiven: await within(given, GIVE_MS), sinceMs });
}

/** Has the address where the guest is, until the guest runs at the target. Throws when `signal` says that it has not. */
async function follow(migration: Migration, pauses: Pauses, signal: AbortSignal): Promise<void> {
  const { before } = migration;
  let wasLost = false;
  for (;;) {
    const pause = await pauses.next(migration.isSwapped ? LOOK_AFTER_MS : LOOK_MS);
    if (pause && !migration.isSwapped) {
      await swap(migration, pause);
      continue;
    }
    const [near, far] = await look(migration, pauses);
    if (far && runs(far)) break;
    // It has gone on before anybody heard that it stood still.
    const isLost = !migration.isSwapped && near?.mac === before.mac && runs(near);
    if (isLost && wasLost) await ifAnswered(migration.source.address(migration.from));
    if (near && runs(near) && migration.isSwapped) await migration.swapBack("the guest goes on here");
    wasLost = isLost;
    signal.throwIfAborted();
  }
  // Nobody has told that it stood still.
  if (!migration.isSwapped) await migration.swap();
}
