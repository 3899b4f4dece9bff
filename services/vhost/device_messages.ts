/** The messages about the network device that a front-end sees beside its rings. */
import { MTU_MAX } from "../../shared/api/mod.ts";
import { DeviceRefusal } from "../../shared/device/mod.ts";
import { CONFIG_HEADER_BYTES, type Message, ProtocolError } from "../../shared/vhost_user/mod.ts";
import { macText } from "./mac_text.ts";
import type { NetDevice } from "./net_device.ts";
import type { SessionContext } from "./port_context.ts";

/** A request was refused and nothing has changed; the conversation goes on. */
export class Refusal extends Error {
  override readonly name = "Refusal";
}

/** What the messages work with. */
export interface DeviceParts {
  device: NetDevice;
  context: Pick<SessionContext, "pace" | "announce">;
  /** The session has ended: nobody waits for an answer any more. */
  ended: AbortSignal;
}

/** SET_CONFIG: writes into the configuration space. */
export async function setConfig({ device, context, ended }: DeviceParts, { payload }: Message): Promise<void> {
  const bytes = payload.byteLength < CONFIG_HEADER_BYTES ? -1 : payload.getUint32(4, true);
  if (bytes !== payload.byteLength - CONFIG_HEADER_BYTES) {
    throw new ProtocolError(`its ${payload.byteLength} bytes do not hold what they say they do`);
  }
  const data = new Uint8Array(payload.buffer, CONFIG_HEADER_BYTES);
  await context.pace.step();
  const refusal = await device.setConfig(payload.getUint32(0, true), data, ended);
  if (refusal !== undefined) throw new Refusal(refusal);
}

/** SEND_RARP: announces the guest. A NIC that is away ends no session: others find the guest with its next frame. */
export async function announce({ context }: DeviceParts, { payload }: Message): Promise<void> {
  await context.pace.step();
  try {
    await context.announce(macText(new Uint8Array(payload.buffer, 0, 6)));
  } catch (error) {
    throw error instanceof DeviceRefusal ? new Refusal(error.message) : error;
  }
}

/** NET_SET_MTU: the driver has its MTU from the configuration space; what is no MTU at all is refused. */
export function checkMtu({ payload }: Message): void {
  const mtu = payload.getBigUint64(0, true);
  if (mtu > BigInt(MTU_MAX)) throw new Refusal(`an MTU of ${mtu}: at most ${MTU_MAX}`);
}
