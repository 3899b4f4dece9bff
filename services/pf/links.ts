/** What the PF asks of the services that it programmes. */
import {
  ApiError,
  Filter,
  log,
  type ModeEvent,
  type NicEvent,
  NicState,
  type Operations,
  type Peer,
  type PoolName,
  type PortState,
  type Programme,
  type Restarts,
  type ServiceRestart,
  ServiceUpgrade,
  type SwitchProgramme,
  type UpgradedService,
  type UplinkSpec,
  UplinkState,
  type VhostEvent,
  VhostState,
  VportState,
  type WishAnswer,
} from "../../shared/api/mod.ts";
import { z } from "zod";
import { Link } from "./link.ts";
import type { ModeLink } from "./mode_link.ts";

/** A new process starts, learns everything and takes over. */
const UPGRADE_MS = 25_000;
/** How long the old process may go on after it has agreed to an upgrade: by then it has seen that nobody takes over. */
const HAND_OVER_MS = 8000;
const LOOK_MS = 20;

/** Has a new process of a service take over; answers once that has. Throws why it cannot be. */
async function upgraded(
  peer: Pick<Peer, "ask">,
  what: string,
  state: () => Promise<{ pid: number }>,
): Promise<ServiceUpgrade> {
  const upgrade = ServiceUpgrade.parse(await peer.ask("POST", "/api/v1/upgrade", {}, UPGRADE_MS));
  const answered = performance.now();
  for (;;) {
    const pid = (await state().catch(() => undefined))?.pid;
    if (pid === upgrade.pid) return upgrade;
    const tookMs = performance.now() - answered;
    const gone = `process ${upgrade.pid}, which was to take over, has ended or is stopped`;
    if (pid === upgrade.before && tookMs > HAND_OVER_MS) {
      throw new ApiError(409, `${what} goes on as it was: ${gone}`, "service", "not-upgraded");
    }
    if (pid !== undefined && pid !== upgrade.before) {
      throw new ApiError(503, `${gone}: process ${pid} is ${what} now, and began anew`, "service", "not-upgraded");
    }
    if (tookMs > UPGRADE_MS) throw new ApiError(503, `the new process of ${what} does not answer`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** The NIC. */
export class NicLink extends Link<NicEvent> {
  constructor(url: string, token: string | undefined) {
    super("the NIC", url, token);
  }

  /** Puts a programme in force. */
  async program(programme: Programme): Promise<void> {
    await this.peer.ask("PUT", "/api/v1/programme", programme);
  }

  /** Takes a VF that is to be somebody else's back from the guest that drives it, with all that was held for that. */
  async takeBack(vf: number): Promise<void> {
    await this.peer.ask("DELETE", `/api/v1/vfs/${vf}/lease?final=true`);
  }

  /**
   * Puts something of the host behind a pool; answers what became of it. Throws why it cannot be; `keep`: the NIC takes
   * it all the same, and tries again until it can.
   */
  async putUplink(pool: PoolName, spec: UplinkSpec, keep: boolean): Promise<UplinkState> {
    return UplinkState.parse(await this.peer.ask("PUT", `/api/v1/uplinks/${pool}${keep ? "?keep=true" : ""}`, spec));
  }

  /** Has a new process take over; answers once that has. Throws why it cannot be. */
  upgrade(): Promise<ServiceUpgrade> {
    return upgraded(this.peer, "the NIC", () => this.state());
  }

  async state(): Promise<NicState> {
    return NicState.parse(await this.peer.ask("GET", "/api/v1/state"));
  }

  async filters(): Promise<Filter[]> {
    return z.array(Filter).parse(await this.peer.ask("GET", "/api/v1/filters"));
  }
}

/** The vhost service's software switch. */
export class SwitchLink extends Link<VhostEvent> {
  constructor(url: string, token: string | undefined) {
    super("the vhost service", url, token);
  }

  /** Puts a programme in force. */
  async program(programme: SwitchProgramme): Promise<void> {
    await this.peer.ask("PUT", "/api/v1/vports", programme);
  }

  /** Answers a guest's wish. */
  async answerWish(id: string, answer: WishAnswer): Promise<void> {
    await this.peer.ask("PUT", `/api/v1/wishes/${id}`, answer);
  }

  /** Its ports, and whether a front-end is connected to each. */
  async ports(): Promise<PortState[]> {
    return await this.peer.ask("GET", "/api/v1/ports");
  }

  /** Which process it is, and whether another one stands by. */
  async state(): Promise<VhostState> {
    return VhostState.parse(await this.peer.ask("GET", "/api/v1/state"));
  }

  /** Has a new process take over; answers once that has. Throws why it cannot be. */
  upgrade(): Promise<ServiceUpgrade> {
    return upgraded(this.peer, "the vhost service", () => this.state());
  }

  async vports(): Promise<VportState[]> {
    return z.array(VportState).parse(await this.peer.ask("GET", "/api/v1/vports"));
  }
}

/** The services that the PF programmes and asks. */
export interface Links {
  nic: Pick<NicLink, keyof NicLink>;
  software: Pick<SwitchLink, keyof SwitchLink>;
  modes: Pick<ModeLink, keyof ModeLink>;
  /** What the vf service tells of modes; it needs no programme. */
  modeEvents: Pick<Link<ModeEvent>, "follow" | "close" | "connected" | "sinceMs">;
  /** The PF itself. */
  self: Pick<Restarts, "begin">;
}

/**
 * Has a new process do a service's work; answers once it does, or, of the PF itself, that this process ends now. Throws
 * why it cannot be. `operations`: the PF's, none of which may be under way then.
 */
export async function upgradeOf(
  { nic, software: vhost, modes: vf, self }: Pick<Links, "nic" | "software" | "modes" | "self">,
  service: UpgradedService,
  operations: Operations,
): Promise<ServiceUpgrade | ServiceRestart> {
  if (service === "pf") return self.begin(operations);
  const upgrade = await { nic, vhost, vf }[service].upgrade();
  log("info", "pf", `${service} is process ${upgrade.pid} now, in place of ${upgrade.before}`);
  return upgrade;
}
