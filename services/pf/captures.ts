/** Captures at the PF: what is asked for is found, and the service whose engine has the frames is asked; its answer is passed on. */
import { type CapturedPort, type CaptureQuery, captureSearch, PCAPNG_TYPE, type Role } from "../../shared/api/mod.ts";
import { type CapturePlaces, endingWith } from "./capture_places.ts";
import type { Links } from "./links.ts";
import { findVf, findVport } from "./policy.ts";
import type { Settings } from "./store.ts";

/** What captures are opened with. */
export interface CaptureParts {
  settings: Settings;
  links: Pick<Links, "nic" | "software">;
  places: CapturePlaces;
}

/** Opens a capture of `port`; answers its stream. `by`: who asks; a VF's token has few. Throws ApiError. */
export async function openCapture(
  { settings, links, places }: CaptureParts,
  port: CapturedPort,
  query: CaptureQuery,
  by: Role | undefined,
): Promise<Response> {
  const { service, ports } = placeOf(settings, port);
  const open = () => links[service].capture(captureSearch(query, ports));
  const stream = by?.role === "vf" ? await openAtPlace(places, by.vf, open) : await open();
  const name = typeof port === "string" ? port : Object.entries(port).flat().join("");
  return new Response(stream, {
    headers: { "content-type": PCAPNG_TYPE, "content-disposition": `attachment; filename="${name}.pcapng"` },
  });
}

/** Opens a stream that has one of VF `vf`'s places until it is over. */
async function openAtPlace(
  places: CapturePlaces,
  vf: number,
  open: () => Promise<ReadableStream<Uint8Array<ArrayBuffer>>>,
): Promise<ReadableStream<Uint8Array<ArrayBuffer>>> {
  const giveBack = places.take(vf);
  try {
    return endingWith(await open(), () => giveBack(true));
  } catch (error) {
    giveBack(false);
    throw error;
  }
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
