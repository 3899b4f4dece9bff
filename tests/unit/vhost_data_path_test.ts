/**
 * A guest's rings change hands while they run: what is on its way is delivered first, they go on from where they stopped,
 * and if they cannot, they stay. And what served them may go away and come back.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { DeviceRefusal, type RequestInput } from "../../shared/device/mod.ts";
import { TestSession, untilSignalled, vringState } from "../support/test_session.ts";

/** A session on `path` with a queue pair that runs, and has come as far as 5 and 9. */
async function running(path: "passthrough" | "emulated"): Promise<TestSession> {
  const test = await TestSession.start(path);
  await test.startRings(1, 0);
  test.backend?.positions.set(0, 5).set(1, 9);
  return test;
}

const no = (why: string) => new DeviceRefusal("no", why);

Deno.test("transmit rings stop, what is on its way is delivered, and the next one starts with receive rings", async () => {
  await using test = await running("emulated");
  await test.session.switchTo("passthrough");
  assertEquals(test.log, [
    "local: stop 1",
    "local: drain",
    "local: stop 0",
    "local: release (its data path changes)",
    "nic: attach",
    "nic: memory 1",
    "nic: start 0 at 5 kick call",
    "nic: start 1 at 9 kick call",
  ]);
  assertEquals([test.session.path, test.running], ["passthrough", [1, 0]]);
});

Deno.test("to the path that it is on there is nothing to change", async () => {
  await using test = await running("emulated");
  await test.session.switchTo("emulated");
  assertEquals(test.log, []);
});

Deno.test("rings that do not run are not started by a change", async () => {
  await using test = await TestSession.start("emulated");
  await test.startRings(0, 1);
  await test.enable(1, false);
  await test.session.switchTo("passthrough");
  assertEquals([test.running, test.log.at(-1)], [[0], "nic: start 0 at 0 kick call"]);
  await test.enable(1, true);
  assertEquals(test.log.at(-1), "nic: start 1 at 0 kick call");
});

Deno.test("a session without memory gives the next one none", async () => {
  await using test = new TestSession("emulated");
  await test.send("VHOST_USER_SET_OWNER");
  await test.session.switchTo("passthrough");
  assertEquals(test.log.slice(-1), ["nic: attach"]);
});

// Changes that cannot be -----------------------------------------------------------------------------------------

Deno.test("if what is on its way is not delivered, the rings go on where they are", async () => {
  await using test = await running("emulated");
  test.fail("drain", new Error("the VF's transmit queue did not run empty"));
  await assertRejects(() => test.session.switchTo("passthrough"), Error, "did not run empty");
  assertEquals(test.log, ["local: stop 1", "local: drain", "local: start 1 at 9 kick call"]);
  assertEquals([test.session.path, test.running], ["emulated", [1, 0]]);
});

for (
  const [op, why] of [["attach", "vf 3 is in use"], ["dmaSet", "the memory is not sealed"], [
    "queueStart",
    "bad ring",
  ]] as const
) {
  Deno.test(`if the next one fails at ${op}, the one before goes on from there, and the reason is told`, async () => {
    await using test = await running("emulated");
    test.fail(op, no(why));
    await assertRejects(() => test.session.switchTo("passthrough"), DeviceRefusal, why);
    assertEquals(test.log.filter((line) => line.startsWith("nic: release")), [`nic: release (${why})`]);
    assertEquals(test.log.slice(-4), [
      "local: attach",
      "local: memory 1",
      "local: start 0 at 5 kick call",
      "local: start 1 at 9 kick call",
    ]);
    assertEquals([test.session.path, test.running], ["emulated", [1, 0]]);
  });
}

Deno.test("rings that the next one has started before it failed are stopped: where they got to is where they go on", async () => {
  await using test = await running("emulated");
  test.fail("queueStart", no("bad ring"), { after: 1 });
  await assertRejects(() => test.session.switchTo("passthrough"), DeviceRefusal, "bad ring");
  const nic = test.log.filter((line) => line.startsWith("nic: ")).slice(2);
  assertEquals(nic, [
    "nic: start 0 at 5 kick call",
    "nic: start 1 at 9 kick call",
    "nic: stop 0",
    "nic: release (bad ring)",
  ]);
  assertEquals(test.running, [1, 0]);
});

Deno.test("if neither can serve the rings the session ends: its front-end comes anew", async () => {
  await using test = await running("emulated");
  test.fail("attach", no("vf 3 is in use"), { times: 2 });
  const error = await assertRejects(() => test.session.switchTo("passthrough"), Error) as Error;
  assertEquals(error.message, "vf 3 is in use; and the way back failed: vf 3 is in use");
  assertEquals(await test.ended, "the front-end closed the connection");
});

// A guest that drives its VF itself --------------------------------------------------------------------------------

Deno.test("a guest that drives its VF leaves its rings where they are, and nobody serves them", async () => {
  await using test = await running("emulated");
  await test.session.switchTo("guest");
  assertEquals(test.log.at(-1), "local: release (its data path changes)");
  assertEquals([test.session.path, test.running, test.backend], ["guest", [], undefined]);
  // Its driver still speaks.
  await test.setMemory(1, 2);
  await test.messages(1).call();
  await test.enable(0, true);
  assertEquals([test.running, test.state.memoryRegions, test.connection.isClosed], [[], 2, false]);
  assertEquals([await test.stopRing(1), await test.stopRing(0)], [9, 5]);
});

Deno.test("back from the guest its rings go on where they stopped", async () => {
  await using test = await running("emulated");
  await test.session.switchTo("guest");
  test.log.length = 0;
  await test.session.switchTo("emulated");
  assertEquals(test.log, [
    "local: attach",
    "local: memory 1",
    "local: start 0 at 5 kick call",
    "local: start 1 at 9 kick call",
  ]);
});

Deno.test("rings that are described while nobody serves them are served later", async () => {
  await using test = await TestSession.start("guest");
  await test.startRings(0, 1);
  assertEquals(test.running, []);
  await test.session.switchTo("emulated");
  assertEquals([test.running, test.log.slice(-2)], [[0, 1], [
    "local: start 0 at 0 kick call",
    "local: start 1 at 0 kick call",
  ]] as [number[], string[]]);
});

Deno.test("a guest that has driven its VF does not get it again: if nobody can serve its rings, its session ends", async () => {
  await using test = await running("emulated");
  await test.session.switchTo("guest");
  test.fail("attach", no("the arena is full"));
  await test.session.switchTo("emulated");
  assertEquals(await test.ended, "the front-end closed the connection");
  assertEquals(test.warnings.at(-1), "no longer drives its VF, and nobody serves its rings: the arena is full");
});

// Messages and changes at one time -----------------------------------------------------------------------------------

Deno.test("messages and changes happen one after the other", async () => {
  await using test = await running("emulated");
  const changes = [test.session.switchTo("passthrough"), test.session.switchTo("emulated")];
  const base = test.stopRing(0);
  await Promise.all(changes);
  assertEquals([await base, test.running], [5, [1]]);
  assertEquals(test.log.filter((line) => line.includes("attach")), ["nic: attach", "local: attach"]);
});

Deno.test("no change comes after the end", async () => {
  await using test = await running("emulated");
  await test.end();
  await assertRejects(() => test.session.switchTo("passthrough"), DeviceRefusal, "the front-end has gone");
});

// What served the rings goes away and comes back -------------------------------------------------------------------

Deno.test("a NIC that has started anew gets memory and rings: they go on where their used index says", async () => {
  await using test = await running("passthrough");
  await test.enable(0, false);
  test.log.length = 0;
  const { backend } = test;
  backend?.positions.clear();
  test.used.set(1, 12);
  await backend?.events.restoreRings((body, fds) => backend.request(body, fds));
  assertEquals(test.log, ["nic: memory 1", "nic: start 1 at 12 kick call"]);
  assertEquals(test.running, [1]);
});

Deno.test("a ring that the new NIC refuses is shown with the reason; the others go on", async () => {
  await using test = await running("passthrough");
  const error = test.eventFd();
  await test.send("VHOST_USER_SET_VRING_ERR", new Uint8Array(new BigUint64Array([1n]).buffer), [error]);
  const { backend } = test;
  backend?.positions.clear();
  test.fail("queueStart", no("its descriptors lie nowhere"));
  await backend?.events.restoreRings((body, fds) => backend.request(body, fds));
  const shown = test.state.vrings.map(({ index, running, error }) => [index, running, error]);
  assertEquals(shown, [[1, false, "its descriptors lie nowhere"], [0, true, undefined]]);
  await untilSignalled(error);
});

Deno.test("a NIC that goes away again while it is told is attached to once more", async () => {
  await using test = await running("passthrough");
  const gone = ({ op }: RequestInput) =>
    op === "queueStart"
      ? Promise.reject(new DeviceRefusal("nic-gone", "the connection to the NIC ended"))
      : Promise.resolve({});
  await assertRejects(() => test.backend?.events.restoreRings(gone) ?? Promise.resolve(), DeviceRefusal);
  assertEquals(test.running, [1, 0], "they are to run, and will");
});

Deno.test("a NIC that does not come back ends the session", async () => {
  await using test = await running("passthrough");
  test.backend?.events.lost();
  assertEquals(await test.ended, "the front-end closed the connection");
});

Deno.test("a ring that has failed starts again once its front-end has stopped it, and its error is gone then", async () => {
  await using test = await running("passthrough");
  test.backend?.events.queueFailed(1, "a chain longer than the queue");
  await test.send("VHOST_USER_GET_VRING_BASE", vringState(1, 0));
  await test.messages(1).kick();
  assertEquals(test.state.vrings.map(({ error }) => error), [undefined, undefined]);
});
