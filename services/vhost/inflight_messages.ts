/** The messages about a front-end's inflight memory. */
import { type Message, ProtocolError, type VhostUserConnection } from "../../shared/vhost_user/mod.ts";
import { Inflight, makeInflight, type Pay } from "./inflight.ts";
import type { Rings } from "./rings.ts";

/** Does what a message asks for, as far as it is paid for. Throws ProtocolError. */
export async function inflightMessage(
  rings: Rings,
  connection: Pick<VhostUserConnection, "reply">,
  message: Message,
  pay: Pay,
): Promise<void> {
  const { name, payload, fds } = message;
  // How large it is depends on the rings' format.
  if (!rings.isNegotiated) throw new ProtocolError("the features come first: they say which format the rings have");
  if (name === "VHOST_USER_GET_INFLIGHT_FD") {
    const { fd, answer } = await makeInflight(payload, rings.isPacked, pay);
    using _ = fd;
    return connection.reply(name, answer, [fd.number]);
  }
  if (rings.all.some(({ running }) => running)) {
    throw new ProtocolError("rings run: their position is kept where it was kept when they started");
  }
  const inflight = Inflight.of(payload, fds[0], rings.isPacked);
  const unfit = await inflight.unfit(pay);
  if (unfit !== undefined) throw new ProtocolError(`inflight memory that cannot be gone on with: ${unfit}`);
  await rings.memory.keepIn(inflight);
  fds.length = 0;
}
