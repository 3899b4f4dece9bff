/** `fabric operations`: what takes its time, and how it went. */
import type { Command } from "commander";
import type { Operation } from "../../shared/api/mod.ts";
import { type Context, examples, failureOf } from "./context.ts";
import { modeDetail, stepTable, table } from "./views.ts";

/** What there is to say of an operation, in a few words. */
function saidOf({ state, now, problem }: Operation): string {
  if (state === "running") return now ?? "";
  return problem ? failureOf(problem, "") : "";
}

/** One operation: how it went, or how far it is. */
function operationDetail(operation: Operation): string {
  const { id, what, state, startedAt, endedAt, result, steps } = operation;
  const said = saidOf(operation);
  const lines = [
    `${what}: ${state}${said === "" ? "" : `: ${said}`}`,
    `${id}, from ${startedAt}${endedAt === undefined ? "" : ` to ${endedAt}`}`,
  ];
  if (result) return [...lines, "", modeDetail(result)].join("\n");
  return steps.length === 0 ? lines.join("\n") : [...lines, "", stepTable("STEP", steps)].join("\n");
}

/** Adds `operations`. */
export function operationCommands(program: Command, context: Context): void {
  examples(
    program.command("operations [id]").description("changes of mode: under way, and how the latest ones went"),
    "operations",
    "-o json operations",
  ).action(async (id: string | undefined) => {
    const { operations } = context.client.api.v1;
    if (id !== undefined) {
      const found = await context.body<Operation>(operations[":id"].$get({ param: { id } }));
      return context.show(found, () => operationDetail(found));
    }
    const all = await context.body<Operation[]>(operations.$get());
    context.show(all, () =>
      table(
        ["ID", "WHAT", "STATE", "STARTED", "SAYS"],
        all.map((one) => [one.id, one.what, one.state, one.startedAt, saidOf(one)]),
      ));
  });
}
