/** `fabric upgrade`: a process of the program on disk takes a service over, and traffic goes on. */
import type { Command } from "commander";
import { type ServiceUpgrade, UpgradedService } from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { NotUnderstood } from "./values.ts";

const SERVICES = UpgradedService.options;

/** Adds `upgrade`. */
export function upgradeCommand(program: Command, context: Context): void {
  examples(
    program.command("upgrade [service]").description(
      `has a new process of the program on disk take over; traffic goes on: ${
        SERVICES.join(" or ")
      }, both if none is said`,
    ),
    "upgrade",
    "upgrade vhost",
  ).action(async (service: string | undefined) => {
    const known = SERVICES.find((name) => name === service);
    if (service !== undefined && !known) {
      throw new NotUnderstood(
        `${service} cannot be upgraded so: say ${SERVICES.join(" or ")}; pf and vf are just restarted`,
      );
    }
    for (const name of known ? [known] : SERVICES) {
      const answer = context.client.api.v1.services[":service"].upgrade.$post({ param: { service: name }, json: {} });
      const upgrade = await context.body<ServiceUpgrade>(answer);
      context.show(upgrade, () => `${name} is process ${upgrade.pid} now, in place of process ${upgrade.before}.`);
    }
  });
}
