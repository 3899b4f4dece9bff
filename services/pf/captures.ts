/** Captures at the PF: what is asked for is found, and the service whose engine has the frames is asked; its answer is passed on. */
import { type CapturedPort, type CaptureQuery, captureSearch, PCAPNG_TYPE } from "../../shared/api/mod.ts";
import type { Links } from "./links.ts";
import { findVf, findVport } from "./policy.ts";
import type { Settings } from "./store.ts";

/** Opens a capture of `port`; answers its stream. Throws ApiError. */
export async function openCapture(
  settings: Settings,
  links: Pick<Links, "nic" | "software">,
  port: CapturedPort,
  query: CaptureQuery,
): Promise<Response> {
  const { service, ports } = placeOf(settings, port);
  const stream = await links[service].capture(captureSearch(query, ports));
  const name = typeof port === "string" ? port : Object.entries(port).flat().join("");
  return new Response(stream, {
    headers: { "content-type": PCAPNG_TYPE, "content-disposition": `attachment; filename="${name}.pcapng"` },
  });
}

/** Which service's engine has the port's frames, and what the port is called there. Throws ApiError. */
function placeOf(settings: Settings, port: CapturedPort): { service: "nic" | "software"; ports?: string } {
  if (port === "all") return { service: "nic" };
  if (typeof port === "string") return { service: "nic", ports: port };
  if ("vf" in port) {
    findVf(settings, port.vf);
    return { service: "nic", ports: String(port.vf) };
  }
  const { vf } = findVport(settings, port.vport);
  return vf === null ? { service: "software", ports: String(port.vport) } : { service: "nic", ports: String(vf) };
}
