/** A guest's seat: who runs there is said by its state, and what its interface is to be is heard in that state alone. */
import { assertEquals, assertThrows } from "@std/assert";
import { ApiError, type GuestConfig, type GuestSeat } from "../../shared/api/mod.ts";
import { Seat, type SeatParts } from "../../services/guest/seat.ts";

const OWN = "02:00:00:00:00:01";
const OTHER = "02:00:00:00:00:02";
const STATES: GuestSeat[] = ["running", "leaving", "stopped", "gone", "waiting", "arriving", "arrived"];

/** A seat whose guest has the address OWN, and what is put in force there. */
function seat(): { seat: Seat; applied: string[]; heard: boolean[]; mayChange: () => boolean } {
  const [applied, heard]: [string[], boolean[]] = [[], []];
  const shell = { mayChange: () => true };
  const link = { apply: ({ mac }: GuestConfig) => void applied.push(mac) };
  const made = new Seat({ shell, link, host: { mac: OWN } } as unknown as SeatParts);
  made.onConfig = (hasAddress) => void heard.push(hasAddress);
  return { seat: made, applied, heard, mayChange: () => shell.mayChange() };
}

const config = (mac: string): GuestConfig => ({ mac, up: true, promisc: false, multicast: "all" });

Deno.test("a seat: what the interface is to be is in force while a guest runs; else it says whether its address is here", () => {
  for (const state of STATES) {
    const { seat: one, applied, heard } = seat();
    one.state = state;
    one.heard(config(OTHER), state);
    one.heard(config(OWN), state);
    const runs = state === "running" || state === "leaving";
    assertEquals([applied, heard], runs ? [[OTHER, OWN], []] : [[], [false, true]], state);
  }
});

Deno.test("a seat: an answer from before the guest began to run here is not in force, and not one from before it left", () => {
  const { seat: one, applied, heard } = seat();
  one.state = "running";
  one.heard(config(OTHER), "arrived");
  one.state = "gone";
  one.heard(config(OWN), "running");
  assertEquals([applied, heard], [[], []]);
});

Deno.test("a seat: a guest is asked for something while it runs, and its data path stays while it is moved", () => {
  const { seat: one, mayChange } = seat();
  for (const state of STATES) {
    one.state = state;
    assertEquals(mayChange(), state === "running", state);
    if (state === "running" || state === "leaving") one.mustRun();
    else assertEquals(assertThrows(() => one.mustRun(), ApiError).reason, "no-guest", state);
  }
  const error = assertThrows(() => one.mustBe("take a guest", "waiting"), ApiError);
  assertEquals([error.message, error.reason], ["cannot take a guest: this seat is arrived", "wrong-seat"]);
});
