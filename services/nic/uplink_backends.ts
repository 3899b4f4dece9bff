/** From what an uplink is to be to what is behind its port. */
import ipaddr from "ipaddr.js";
import type { UplinkSpec } from "../../shared/api/mod.ts";
import { type Backend, CaptureBackend, PacketBackend, TapBackend, XdpBackend } from "../../shared/netdev/mod.ts";

/** A spec that has something behind it. */
export type OpenSpec = Exclude<UplinkSpec, { kind: "none" }>;

/**
 * Opens the backend of a spec. An interface that is made has the address `mac`: whoever knows it finds it again. Throws
 * what to do if it cannot be.
 */
export function openBackend(spec: OpenSpec, mac: string | undefined): Backend {
  switch (spec.kind) {
    case "tap":
      return openTap(spec, mac);
    case "packet":
      return new PacketBackend(spec.interface);
    case "pcap":
      return openCapture(spec);
    case "xdp":
      return new XdpBackend(spec.interface, spec.queue ?? 0);
  }
}

/** Whether a successor must wait for its predecessor to let go: both are of one interface, or write one file. */
export function sharesFile(a: OpenSpec, b: OpenSpec): boolean {
  const files = (spec: OpenSpec): (string | undefined)[] =>
    spec.kind === "tap"
      ? [`interface ${spec.name}`]
      : spec.kind === "pcap"
      ? [spec.record]
      : [`interface ${spec.interface}`];
  return files(a).some((file) => file !== undefined && files(b).includes(file));
}

/** A TAP that is switched on and has its address. */
function openTap({ name, address }: Extract<OpenSpec, { kind: "tap" }>, mac: string | undefined): Backend {
  const backend = new TapBackend({ name, mac });
  try {
    if (address !== undefined) {
      const [ip, bits] = ipaddr.parseCIDR(address);
      backend.setAddress(ip.toByteArray(), bits, address);
    }
    backend.switchOn();
    return backend;
  } catch (error) {
    backend.close();
    throw error;
  }
}

function openCapture({ replay, record, speed = "paced", loop = false }: Extract<OpenSpec, { kind: "pcap" }>): Backend {
  if (replay !== undefined && replay === record) throw new Error(`Cannot replay ${replay} and record into it`);
  return new CaptureBackend({ replay, record, isPaced: speed === "paced", loops: loop });
}
