/** Guests' wishes: granted or refused by policy, in force when they are answered, and told to whoever listens. */
import {
  ApiError,
  LinkPatch,
  log,
  oneLine,
  type PortPolicy,
  type WishAnswer,
  type WishEvent,
} from "../../shared/api/mod.ts";
import type { Events } from "./events.ts";
import type { Links } from "./links.ts";
import { type Granted, grantWish } from "./wishes.ts";

/** Whose guest wishes. */
export type WishFrom = { vf: number } | { vport: number };

/** A wish, and when nobody waits for its answer any more (milliseconds since 1970). */
export interface Wish {
  wish: LinkPatch;
  until: number;
}

/** Addresses of a refused wish that listeners are told of. */
const TOLD_MAX = 3;

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
    { wish, until }: Wish,
    change: (grant: (policy: PortPolicy) => Granted) => Promise<void>,
  ): Promise<void> {
    const who = "vf" in from ? `vf ${from.vf}` : `vport ${from.vport}`;
    let changes: Granted = {};
    try {
      await change((policy) => {
        if (Date.now() > until) throw new ApiError(409, `${who}'s guest no longer waits for it`, undefined, "too-late");
        return changes = grantWish(who, policy, wish, this.#derivedOwner);
      });
    } catch (error) {
      if (error instanceof ApiError && error.status === 409) {
        this.#events.emit({ type: "wish-refused", ...from, wish: shortened(wish), detail: error.message });
      }
      throw error;
    }
    if (Object.keys(changes).length === 0) return;
    log("info", "pf", `${who}: its guest has asked for ${JSON.stringify(wish)}`);
    if ("vf" in from) this.#events.emit({ type: "vf-changed", vf: from.vf, changes });
    else this.#events.emit({ type: "vport-changed", vport: from.vport, changes });
  }
}

/** Who grants wishes of VFs' guests, and of vports'. */
export interface WishHandlers {
  patchGuest(id: number, wish: LinkPatch, until?: number): Promise<unknown>;
  patchVportGuest(id: number, wish: LinkPatch, until?: number): Promise<unknown>;
}

function shortened(wish: LinkPatch): LinkPatch {
  const { unicast, multicast } = wish;
  return {
    ...wish,
    ...(unicast ? { unicast: unicast.slice(0, TOLD_MAX) } : {}),
    ...(Array.isArray(multicast) ? { multicast: multicast.slice(0, TOLD_MAX) } : {}),
  };
}

/** Grants or refuses what a guest wishes by its control queue, and has it told. */
export async function answerWish(
  { id, port, wish: said, until }: WishEvent,
  handlers: WishHandlers,
  software: Pick<Links["software"], "answerWish">,
): Promise<void> {
  let answer: WishAnswer = { granted: true };
  try {
    // The guest has written it: nothing but what a policy can have is looked at.
    const wish = LinkPatch.parse(said);
    if (typeof port === "number") await handlers.patchGuest(port, wish, until);
    else if (port !== "uplink") await handlers.patchVportGuest(Number(port.slice("vport".length)), wish, until);
    // The uplink's port gets everything as it is; its address is only a name.
    else if (wish.mac !== undefined) throw new ApiError(409, "the uplink's port has no address of its own", "mac");
  } catch (error) {
    answer = { granted: false, reason: oneLine(error) };
  }
  await software.answerWish(id, answer).catch((error) => {
    log("warn", "pf", `cannot tell the guest of ${port} about its wish: ${oneLine(error)}`);
  });
}
