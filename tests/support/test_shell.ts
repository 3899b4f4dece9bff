/**
 * A guest with a shell whose driver is a real one: it does its part of a change of mode, refuses it, lies about it, is
 * silent, or does it when nobody expects it any more.
 */
import { ApiError, type GuestMode } from "../../shared/api/mod.ts";
import type { Driver } from "./vf_driver.ts";

/** What a guest does when it is asked for its part of a change. */
export const PLANS = [
  "honest",
  "isSilent",
  "refusesToRest",
  "refusesTheVf",
  "refusesToGiveBack",
  // It says that it has done what it has not.
  "lies",
  // It takes the VF and says that it could not.
  "keepsAndRefuses",
  // It says that it could not, and comes with its token when nobody expects it any more.
  "takesLate",
] as const;
export type Plan = typeof PLANS[number];
type Part = "rest" | "take" | "giveBack" | "send";

/** The part of a change that a guest does not do, and says so. */
const REFUSED: Partial<Record<Plan, Part>> = {
  refusesToRest: "rest",
  refusesTheVf: "take",
  takesLate: "take",
  refusesToGiveBack: "giveBack",
};

/** Makes connections to the NIC. */
export interface DriverSource {
  driver(name: string, socket: string): Driver;
}

/** A guest with a shell, as the vf service sees it. */
export class TestShell {
  readonly api = "";
  readonly boot = "";
  readonly port: number;
  plan: Plan = "honest";
  mode: GuestMode = { mode: "emulated", connected: true };
  seenMs = 0;
  groupsAreStale = false;
  driver: Driver | undefined;
  /** A token that it has kept for later. */
  kept: string | undefined;
  readonly #drivers: DriverSource;

  constructor(drivers: DriverSource, port: number) {
    this.#drivers = drivers;
    this.port = port;
  }

  #answer(part: Part): Promise<void> {
    if (this.plan === "isSilent") return Promise.reject(new ApiError(503, "no answer", undefined, "unreachable"));
    return REFUSED[this.plan] === part ? Promise.reject(new ApiError(409, "no, thank you")) : Promise.resolve();
  }

  inject(): Promise<void> {
    return Promise.resolve();
  }

  quiesce(): Promise<void> {
    return this.#answer("rest");
  }

  async passthrough(vf: number, token: string): Promise<void> {
    this.kept = token;
    await this.#answer("take");
    if (this.plan !== "lies") await this.take(vf, token);
    this.mode = { mode: "passthrough", plugin: "test", version: "1.0.0", connected: true };
    if (this.plan === "keepsAndRefuses") throw new ApiError(409, "it did not work");
  }

  /** Attaches to a VF with a token and drives it. */
  async take(vf: number, token: string): Promise<void> {
    const driver = this.#drivers.driver(`guest of port ${this.port}`, "passthrough.sock");
    await driver.attach(vf, "passthrough", token);
    this.driver = driver;
    await driver.drive();
  }

  async emulated(): Promise<void> {
    await this.#answer("giveBack");
    this.mode = { mode: "emulated", connected: true };
    if (this.plan === "lies") return;
    await this.driver?.detach().catch(() => {});
  }

  refresh(): Promise<void> {
    return this.#answer("send");
  }

  allowTx(): Promise<void> {
    return this.#answer("send");
  }
}
