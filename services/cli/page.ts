/** `fabric page`: where the fabric is to be looked at with a browser. */
import type { Command } from "commander";
import { type Context, examples } from "./context.ts";

/** Adds `page`. */
export function pageCommand(program: Command, context: Context): void {
  examples(
    program.command("page").description("the address of the fabric's page, with the token that it asks for"),
    "page",
    "--run-dir DIR page",
  ).action(() => {
    const { api, token } = context.fabric;
    const url = `${api}/${token === undefined ? "" : `#token=${encodeURIComponent(token)}`}`;
    context.show({ url }, () => url);
  });
}
