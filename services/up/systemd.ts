/** Tells systemd how it stands, if it has started this process as a service of Type=notify (sd_notify(3)). */
import { log, oneLine } from "../../shared/api/mod.ts";

/** Says a state such as `--ready` or `STOPPING=1` by systemd's own program. Outside systemd nothing happens. */
export async function tellSystemd(...state: string[]): Promise<void> {
  if (!Deno.env.get("NOTIFY_SOCKET")) return;
  try {
    const { success, stderr } = await new Deno.Command("systemd-notify", { args: state }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
  } catch (error) {
    log("warn", "up", `cannot tell systemd ${state.join(" ")}: ${oneLine(error)}`);
  }
}
