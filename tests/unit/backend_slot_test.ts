/** What of a session's backend a standby is told while the data path changes, and what it does with it. */
import { assertEquals } from "@std/assert";
import { Pace } from "../../shared/async/mod.ts";
import type { SessionContext } from "../../services/vhost/port_context.ts";
import { BackendSlot } from "../../services/vhost/backend_slot.ts";
import type { RingBackend, RingPath } from "../../services/vhost/ring_backend.ts";
import type { KeptObject } from "../../services/vhost/standby/mod.ts";

/** A slot whose backends are fake ones, and what has happened, in order. */
function slotOn(path: RingPath, refused: RingPath[] = []) {
  const events: string[] = [];
  const toldNow = () => {
    const { path, isTaken } = slot.kept.backend?.value as { path: RingPath; isTaken: boolean };
    return `told ${path}, ${isTaken ? "taken" : "not taken"}`;
  };
  const makeBackend = (path: RingPath) => ({
    attach: () => {
      events.push(`attach ${path}`);
      return refused.includes(path) ? Promise.reject(new Error("refused")) : Promise.resolve();
    },
    release: () => Promise.resolve(void events.push(`release ${path}`)),
  } as Partial<RingBackend> as RingBackend);
  const context = { makeBackend, pace: new Pace({ perSecond: 1000, burst: 100 }) } as Partial<
    SessionContext
  > as SessionContext;
  const slot = new BackendSlot(context, path, {
    restoreRings: () => Promise.resolve(),
    // As slow as a standby may be.
    changed: () => Promise.resolve().then(() => Promise.resolve()).then(() => void events.push(toldNow())),
    lost: () => {},
    queueFailed: () => {},
  });
  return { slot, events };
}

/** What a standby has of a slot. */
function keptOf(slot: BackendSlot): KeptObject {
  return new Map(Object.entries(slot.kept).map(([name, { value }]) => [name, { value, fds: [] }]));
}

Deno.test("a standby knows that a backend is given back before it is", async () => {
  const { slot, events } = slotOn("emulated");
  await slot.attach();
  await slot.release("its data path changes");
  assertEquals(events, ["attach emulated", "told emulated, not taken", "release emulated"]);
});

Deno.test("what is not there is not given back, and nobody is told", async () => {
  const { slot, events } = slotOn("emulated");
  await slot.release("");
  assertEquals(events, []);
});

Deno.test("the path is another one when its backend is there, and not before", async () => {
  const { slot, events } = slotOn("emulated", ["passthrough"]);
  await slot.attach();
  await slot.beginChange();
  await slot.release("");
  assertEquals(await slot.take("passthrough").then(() => "taken", ({ message }) => message), "refused");
  assertEquals([slot.path, slot.isTaken], ["emulated", false]);
  await slot.take("zerocopy");
  assertEquals([slot.path, slot.isTaken], ["zerocopy", true]);
  assertEquals(events.filter((event) => event.startsWith("told")), [
    "told emulated, taken",
    "told emulated, not taken",
  ]);
});

Deno.test("whoever takes over from a process that was just getting a backend gets one", async () => {
  const { slot: before } = slotOn("passthrough");
  const { slot } = slotOn("emulated");
  const part = {
    rings: [],
    ringAt: () => {
      throw new Error("there is no ring");
    },
    tellMemory: () => Promise.resolve(),
    startAgain: () => Promise.resolve(),
  };
  await slot.adopt(keptOf(before), part);
  let begun = 0;
  await slot.goOn(part, async () => {
    // The lease of the process that has ended may not be over yet.
    if (++begun < 3) throw new Error("in use");
    await slot.take(slot.path);
  });
  assertEquals([begun, slot.path, slot.isTaken], [3, "passthrough", true]);
});
