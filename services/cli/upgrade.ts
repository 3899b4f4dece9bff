/** `fabric upgrade`: a process of the program on disk does a service's work, and traffic goes on. */
import type { Command } from "commander";
import { oneLine, restarted, type ServiceRestart, type ServiceUpgrade, UpgradedService } from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { NotUnderstood, shown, UsageError } from "./values.ts";

const SERVICES = UpgradedService.options;

/** Upgrades one service; answers when a new process does its work. Throws why none does. */
async function upgrade(context: Context, service: UpgradedService): Promise<ServiceUpgrade> {
  const { upgrade } = context.client.api.v1.services[":service"];
  const answer = await context.body<ServiceUpgrade | ServiceRestart>(upgrade.$post({ param: { service }, json: {} }));
  if ("pid" in answer) return answer;
  context.progress.say(`${service}: ${answer.restartedBy} starts the program on disk`);
  return await restarted(service, context.pf, answer);
}

/** Adds `upgrade`. */
export function upgradeCommand(program: Command, context: Context): void {
  examples(
    program.command("upgrade [service]").description(
      `has a new process of the program on disk do the work of ${
        SERVICES.join(", ")
      }, or of all; pf and vf are restarted, and no frame is disturbed`,
    ),
    "upgrade",
    "upgrade vhost",
  ).action(async (service: string | undefined) => {
    const known = SERVICES.find((name) => name === service);
    if (service !== undefined && !known) {
      throw new NotUnderstood(
        `${shown(service)} is no service that is upgraded: say ${SERVICES.join(", ")}, or none for all`,
      );
    }
    const wanted = known ? [known] : SERVICES;
    for (const [i, name] of wanted.entries()) {
      context.progress.say(`upgrade ${name}`);
      const done = await upgrade(context, name).catch((error) => {
        const left = wanted.slice(i + 1);
        throw new UsageError(oneLine(error) + (left.length === 0 ? "" : `; not upgraded either: ${left.join(", ")}`));
      });
      context.show({ service: name, ...done }, () => `${name} is process ${done.pid} now, in place of ${done.before}.`);
    }
  });
}
