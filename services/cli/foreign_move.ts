/**
 * A guest that its own hypervisor moves. The VFs swap their addresses while it stands still: its front-end has stopped its
 * rings here and is about to start them there. If they start here again, the hypervisor has given up: the VFs swap back.
 */
import { oneLine, Unanswered, type Vf } from "../../shared/api/mod.ts";
import type { Context } from "./context.ts";
import { type Migration, type PlacedVf, runs, SwapFailure } from "./migration.ts";
import { type Moved, outcome, patience, takeBack } from "./move_parts.ts";
import { Pauses } from "./pauses.ts";
import { UsageError } from "./values.ts";

/** How often both VFs are looked at, before the swap and after it: seldom, since that takes both PFs' time. */
const LOOK_MS = 250;
const LOOK_AFTER_MS = 50;

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
  using pauses = await Pauses.of(context.fabric, from.id);
  await migration.rehearse();
  try {
    const { id, socket } = await migration.prepare();
    await migration.setMode(from, migration.before);
    context.progress.say(`vf ${id} there is ready: move the guest to ${socket}`);
    await follow(migration, pauses, waiting.signal);
  } catch (error) {
    // The guest may run there by now: its policy is right, and whoever reads this gives it the address.
    if (error instanceof SwapFailure) throw error;
    if (migration.isSwapped) await migration.swapBack(oneLine(error));
    await takeBack(error, "the target's vf is not as it was", async () => {
      await migration.undo();
      await migration.setMode(migration.before, from);
    });
    throw error;
  }
  return await outcome(migration);
}

/** How a VF is; undefined while its PF does not answer, such as one that is being restarted: its guest moves all the same. */
async function look(vf: PlacedVf): Promise<Vf | undefined> {
  try {
    return await vf.get();
  } catch (error) {
    if (error instanceof Unanswered) return undefined;
    throw error;
  }
}

/** Has the address where the guest is, until the guest runs at the target. Throws when `signal` says that it has not. */
async function follow(migration: Migration, pauses: Pauses, signal: AbortSignal): Promise<void> {
  for (;;) {
    const isPaused = await pauses.next(migration.isSwapped ? LOOK_AFTER_MS : LOOK_MS);
    if (isPaused && !migration.isSwapped) {
      await migration.swap();
      continue;
    }
    const [near, far] = await Promise.all([look(migration.source), look(migration.target)]);
    if (far && runs(far)) break;
    if (migration.isSwapped && near && runs(near)) await migration.swapBack("the guest goes on here");
    signal.throwIfAborted();
  }
  // Nobody has told that it stood still.
  if (!migration.isSwapped) await migration.swap();
}
