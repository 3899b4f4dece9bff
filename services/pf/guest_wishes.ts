/** Guests' wishes: granted or refused by policy, in force when they are answered, and told to whoever listens. */
import {
  ApiError,
  type LinkPatch,
  log,
  oneLine,
  type PfHandlers,
  type PortPolicy,
  type VhostEvent,
  type WishAnswer,
} from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import { type Granted, grantWish } from "./wishes.ts";

/** Whose guest wishes. */
export type WishFrom = { vf: number } | { vport: number };

/** Grants wishes and tells of them. */
export class GuestWishes {
  readonly #events: Events;
  readonly #derivedOwner: (mac: string) => string | undefined;

  constructor(events: Events, derivedOwner: (mac: string) => string | undefined) {
    this.#events = events;
    this.#derivedOwner = derivedOwner;
  }

  /**
   * Grants a wish: `change` makes what `grant` answers the policy. Throws the reason if it is refused. A wish for what is
   * so already changes nothing, and nobody is told.
   */
  async grant(
    from: WishFrom,
    wish: LinkPatch,
    change: (grant: (policy: PortPolicy) => Granted) => Promise<void>,
  ): Promise<void> {
    const who = "vf" in from ? `vf ${from.vf}` : `vport ${from.vport}`;
    let changes: Granted = {};
    try {
      await change((policy) => changes = grantWish(who, policy, wish, this.#derivedOwner));
    } catch (error) {
      if (error instanceof ApiError && error.status === 409) {
        this.#events.emit({ type: "wish-refused", ...from, wish, detail: error.message });
      }
      throw error;
    }
    if (Object.keys(changes).length === 0) return;
    log("info", "pf", `${who}: its guest has asked for ${JSON.stringify(wish)}`);
    if ("vf" in from) this.#events.emit({ type: "vf-changed", vf: from.vf, changes });
    else this.#events.emit({ type: "vport-changed", vport: from.vport, changes });
  }
}

/** Grants or refuses what a guest wishes by its control queue, and has it told. */
export async function answerWish(
  { id, port, wish }: VhostEvent,
  handlers: Pick<PfHandlers, "patchGuest" | "patchVportGuest">,
  software: Pick<Links["software"], "answerWish">,
): Promise<void> {
  let answer: WishAnswer = { granted: true };
  try {
    if (typeof port === "number") await handlers.patchGuest(port, wish);
    else if (port !== "uplink") await handlers.patchVportGuest(Number(port.slice("vport".length)), wish);
    // The uplink's port gets everything as it is; its address is only a name.
    else if (wish.mac !== undefined) throw new ApiError(409, "the uplink's port has no address of its own", "mac");
  } catch (error) {
    answer = { granted: false, reason: oneLine(error) };
  }
  await software.answerWish(id, answer).catch((error) => {
    log("warn", "pf", `cannot tell the guest of ${port} about its wish: ${oneLine(error)}`);
  });
}
