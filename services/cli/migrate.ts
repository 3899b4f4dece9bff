/**
 * `fabric migrate`: a VF's policy moves to another fabric with its guest. A built-in guest is moved with it; any other one
 * by its hypervisor, such as QEMU's `migrate`: then the target VF is made ready, and gets the guest's address while the
 * guest stands still. What fails leaves the guest where it is.
 */
import type { Command } from "commander";
import { type Arrival, type GuestView, oneLine, Peer, wholeNumber } from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { findTarget, isSamePlace, saidUrl } from "./find.ts";
import { builtInGuest, GuestMove, type GuestsAt } from "./guest_move.ts";
import { moveForeign } from "./foreign_move.ts";
import { Migration, PlacedVf } from "./migration.ts";
import { type Moved, outcome, patience, takeBack } from "./move_parts.ts";
import { oneId, UsageError } from "./values.ts";

interface MigrateOptions {
  to?: string;
  toRunDir?: string;
  toVf?: number;
  timeout: number;
  maxDowntime: number;
  maxRate?: number;
  cancel?: true;
}

/** A built-in guest: it leaves its plugin, moves, and gets one again there. */
async function moveBuiltIn(
  migration: Migration,
  move: GuestMove,
  context: Context,
  { timeout, maxDowntime, maxRate }: MigrateOptions,
): Promise<Moved> {
  const { from, source } = migration;
  const isDriven = from.plugin !== undefined;
  // Whichever way its frames went, a guest arrives in emulated mode.
  const before = await migration.target.getMode();
  using waiting = patience(timeout, `the guest was not there within ${timeout} s (--timeout): it goes on where it is`);
  const request = { maxDowntimeMs: maxDowntime, ...(maxRate === undefined ? {} : { maxRateMbps: maxRate }) };
  let run: Arrival;
  try {
    await migration.prepare();
    if (!isDriven) await migration.setMode(from, before);
    if (isDriven) await source.setMode({ mode: "emulated" });
    await move.copy(request, (text) => context.progress.say(text), waiting.signal);
    await migration.swap();
    run = await move.run();
  } catch (error) {
    await goOnHere(migration, move, error);
    if (!isDriven) await takeBack(error, "the target's vf is in another mode", () => migration.setMode(before, from));
    throw error;
  }
  const notes: string[] = [];
  const attempt = (what: string, act: () => Promise<unknown>) =>
    act().catch((error) => void notes.push(`${what} (${oneLine(error)})`));
  if (isDriven) {
    await attempt("the guest drives its VF no more", async () => {
      await move.known("far");
      await migration.target.setMode({ mode: "passthrough" });
    });
  }
  await attempt("its seat here is not cleared yet", () => move.finish());
  return {
    ...await outcome(migration),
    ...(run.downtimeMs === undefined ? {} : { downtimeMs: run.downtimeMs }),
    ...(notes.length === 0 ? {} : { note: notes.join("; ") }),
  };
}

/** After a failure: the guest goes on at the source, as it was. */
async function goOnHere(migration: Migration, move: GuestMove, error: unknown): Promise<void> {
  const { from: { plugin }, source } = migration;
  // Its address first: the guest goes on where that is.
  if (migration.isSwapped) await migration.swapBack(`the guest does not run at the target (${oneLine(error)})`);
  await takeBack(error, "whether the guest goes on here is not known", () => move.cancel());
  if (plugin !== undefined) {
    const request = { mode: "passthrough", plugin: plugin.replace(" ", "@") } as const;
    await takeBack(error, "the guest drives its VF no more", async () => {
      await move.known("near");
      await source.setMode(request);
    });
  }
  await takeBack(error, "the target's vf is not as it was", () => migration.undo());
}

/** The vf service of the target: two ports behind its PF's, or where RINGFABRIC_TO_VF says. */
function farGuests({ api, token }: { api: string; token: string | undefined }): GuestsAt {
  const url = new URL(api);
  url.port = String(Number(url.port || "80") + 2);
  const said = Deno.env.get("RINGFABRIC_TO_VF");
  return {
    vf: new Peer("the target's vf service", said ? saidUrl("RINGFABRIC_TO_VF", said) : url.origin, token),
    token,
  };
}

/** The built-in guest on a VF. Where it is not known how to ask, there is none. */
async function guestOf(context: Context, id: number): Promise<{ near: GuestsAt; guest: GuestView } | undefined> {
  const { api, token } = context.fabric;
  if (new URL(api).port === "" && !Deno.env.get("RINGFABRIC_VF")) return undefined;
  const near = { vf: context.vf, token };
  const guest = await builtInGuest(near, id);
  return guest && { near, guest };
}

/** Ends a move that somebody else has begun. */
async function cancelMove(id: number, context: Context): Promise<void> {
  const found = await guestOf(context, id);
  if (!found) throw new UsageError(`no built-in guest is on vf ${id}; any other one is its hypervisor's to move`);
  const { near, guest } = found;
  if (guest.seat !== "leaving" && guest.seat !== "stopped") throw new UsageError(`the guest on vf ${id} is not moved`);
  const peer = new Peer(`the guest on ${id}`, guest.api, near.token);
  context.show(await peer.ask("DELETE", "/api/v1/departure"), () => `the guest goes on on vf ${id}`);
}

/** Adds `migrate`. */
export function migrateCommands(program: Command, context: Context): void {
  examples(
    program.command("migrate <n>").description(
      "move a VF's policy and address to another fabric, with its guest: a built-in one at once, any other one when its " +
        "hypervisor moves it",
    )
      .option("--to <url>", "the API of the PF there (its token: RINGFABRIC_TO_TOKEN)")
      .option("--to-run-dir <dir>", "the run directory of the fabric there, if it is on this host")
      .option("--to-vf <n>", "which VF there, if it is not of the same number", wholeNumber(0, 255))
      .option("--timeout <seconds>", "how long the guest is waited for", wholeNumber(1, 86_400), 600)
      .option(
        "--max-downtime <ms>",
        "a built-in guest: what it may be stopped for to be sent",
        wholeNumber(1, 10_000),
        20,
      )
      .option("--max-rate <mbps>", "a built-in guest: what is sent at the most while it runs", wholeNumber(1, 100_000))
      .option("--cancel", "end the move of the built-in guest on this VF: it goes on here"),
    "migrate 1 --to http://10.0.0.2:8080",
    "migrate 1 --to-run-dir /run/other --to-vf 3",
    "migrate 1 --cancel",
  ).action(async (n: string, options: MigrateOptions) => {
    const { toVf, timeout, cancel, ...where } = options;
    const id = oneId(n);
    if (cancel) return await cancelMove(id, context);
    // Ctrl-C takes back what was done.
    context.progress.leaveSignals();
    const [here, there] = [context.fabric, findTarget(where)];
    if (isSamePlace(here.api, there.api)) throw new UsageError(`the target at ${there.api} is this fabric itself`);
    const source = new PlacedVf(new Peer("this fabric", here.api, here.token), id);
    const target = new PlacedVf(new Peer("the target", there.api, there.token), toVf ?? id);
    const migration = await Migration.check(source, target);
    const found = await guestOf(context, id);
    const moved = found
      ? await moveBuiltIn(migration, await findSeat(found, there, target.id), context, options)
      : await moveForeign(migration, context, timeout);
    const { downtimeMs, note } = moved;
    const stood = downtimeMs === undefined ? "" : `; the guest stood still for ${downtimeMs} ms`;
    context.show(moved, () => {
      const line = `vf ${id} has moved: ${moved.to.mac} is vf ${moved.to.id} of ${there.api} now${stood}`;
      return note === undefined ? line : `${line}\n${note}`;
    });
  });
}

function findSeat(
  { near, guest }: { near: GuestsAt; guest: GuestView },
  there: { api: string; token: string | undefined },
  vf: number,
): Promise<GuestMove> {
  return GuestMove.find(near, guest, farGuests(there), vf);
}
