/** A change of mode from the PF's API to the guest: one deadline, steps on the way, and a vf service that goes away. */
import "../support/quiet.ts";
import { assert, assertEquals } from "@std/assert";
import type { InForce, ModeRequest, Operation, Problem, VfMode } from "../../shared/api/mod.ts";
import { ModeLink } from "../../services/pf/mode_link.ts";
import { type Answer, ask } from "../support/app.ts";
import { type Asked, FakeFetch } from "../support/fake_fetch.ts";
import { refusal } from "../support/fake_shell.ts";
import { modeTest, type ModeWorld } from "../support/mode_world.ts";
import { TestPf } from "../support/test_pf.ts";

const PASSTHROUGH: ModeRequest = { mode: "passthrough", plugin: "advanced" };
const EMULATED: ModeRequest = { mode: "emulated" };

/** A PF, and the vf service over a world of modes, with a line between them that the test can cut. */
interface Both {
  pf: TestPf;
  world: ModeWorld;
  http: FakeFetch;
  /** Asks the PF for a mode, and waits for the end of it, whatever Prefer says first. */
  put(request: ModeRequest, prefer?: string): Promise<Answer<VfMode & Problem & Operation>>;
  look(id: string): Promise<Operation>;
}

function bothTest(name: string, fn: (both: Both) => Promise<void>): void {
  modeTest(name, async (world) => {
    using http = new FakeFetch();
    http.answer = (asked) => reach(world, asked);
    await using pf = await world.time.run(TestPf.start(4, ":memory:", new ModeLink("http://vf", undefined)));
    await fn({
      ...{ pf, world, http },
      put: (request, prefer = "wait=60") => ask(pf.app, "PUT", "/api/v1/vfs/0/mode", request, { prefer }),
      look: (id) => pf.get<Operation>(`operations/${id}`),
    });
  });
}

/** The vf service's own answer. */
async function reach(world: ModeWorld, { method, path, headers, body }: Asked): Promise<Response> {
  return await world.app.request(path, {
    method,
    headers,
    ...(method === "PUT" ? { body: JSON.stringify(body) } : {}),
  });
}

/** A connection that nobody takes. */
const refused = () => Promise.reject(new TypeError("connection refused"));

bothTest("a quick change is one request, and what it did is in the operation", async ({ put, world, http, pf }) => {
  world.port(0);
  const { status, body } = await world.time.run(put(PASSTHROUGH));
  assertEquals([status, body.mode, body.plugin, http.asked.length], [200, "passthrough", "advanced", 1]);
  const [operation] = await pf.get<Operation[]>("operations");
  assertEquals([operation?.steps, operation?.steps.at(-1)?.step], [body.steps ?? [], "the plugin takes the VF"]);
});

bothTest("while a change is under way the operation says what it has done, and what it waits for", async (both) => {
  const { put, look, world } = both;
  world.port(0).tookMs.set("passthrough", 4500);
  const { status, body } = await world.time.run(put(PASSTHROUGH, "respond-async"));
  assertEquals([status, body.state], [202, "running"]);
  await world.time.pass(3000);
  const half = await look(body.id);
  assertEquals([half.state, half.now], ["running", "the plugin takes the VF"]);
  assertEquals(half.steps.at(-1)?.step, "vhost lets go of the VF");
  await world.time.pass(2000);
  const done = await look(body.id);
  assertEquals([done.state, done.result?.plugin, done.steps.at(-1)?.ms], ["done", "advanced", 4500]);
});

bothTest("a failure says which mode is in force after it, soon or late", async ({ put, look, world }) => {
  const guest = await world.driven(0, "virtio");
  guest.troubles.always("inject", refusal("plugin-failed"));
  const soon = await world.time.run(put(PASSTHROUGH));
  assertEquals([soon.status, soon.body.reason, soon.body.inForce], [
    ...[409, "plugin-failed", { mode: "passthrough", plugin: "virtio", version: "1.0.0" }],
  ] as unknown);
  guest.troubles.always("inject", "silence");
  const { body } = await world.time.run(put(PASSTHROUGH, "respond-async, wait=2"));
  assertEquals(body.state, "running");
  await world.time.pass(10_000);
  const { state, problem, steps } = await look(body.id);
  assertEquals([state, problem?.status, problem?.reason], ["failed", 503, "unreachable"]);
  assertEquals([problem?.inForce, steps.at(-1)?.step], [soon.body.inForce, "inject the plugin"]);
});

bothTest("nobody knows what is in force if those who know do not say", async ({ put, world }) => {
  const guest = world.port(0);
  guest.troubles.always("inject", refusal("plugin-failed"));
  world.troubles.always("leaseOf", refusal("unreachable", 503));
  assertEquals((await world.time.run(put(PASSTHROUGH))).body.inForce, null);
});

/** Calls that nobody answers while a VF is taken back, and what is in force then; nothing is said if it is done. */
const SILENT: [string[], InForce | undefined][] = [
  // A hold is only attempted, and ends by itself.
  [["hold", "release"], undefined],
  [["hold", "takeBack", "release"], { mode: "passthrough", plugin: "advanced", version: "2.0.0" }],
  // The guest has given its VF back: no plugin drives it.
  [["setDataPath", "release"], { mode: "passthrough" }],
];
for (const [calls, inForce] of SILENT) {
  bothTest(`one deadline for all, when nobody answers to ${calls.join(", ")}`, async ({ put, world }) => {
    await world.driven(0);
    for (const call of calls) world.troubles.always(call, "silence");
    const start = world.time.now;
    const { status, body } = await world.time.run(put(EMULATED));
    assert(world.time.now - start < 29_500, `${world.time.now - start} ms`);
    assertEquals([status, body.inForce], [inForce ? 503 : 200, inForce]);
    assert(body.reason !== "interrupted", "the vf service has said its word in time");
    world.troubles.clear();
    assertEquals((await world.time.run(put(EMULATED))).body.mode, "emulated", "and it can be asked for again");
  });
}

bothTest("what is taken back has its share of the deadline, too", async ({ put, world }) => {
  world.port(0);
  for (const call of ["setDataPath", "release"]) world.troubles.always(call, "silence");
  const start = world.time.now;
  const { status, body } = await world.time.run(put(PASSTHROUGH));
  assert(world.time.now - start < 29_500, `${world.time.now - start} ms`);
  assertEquals([status, body.reason, body.inForce], [
    503,
    "unreachable",
    { mode: "emulated", dataPath: "copy" },
  ] as unknown);
});

bothTest("every layer is given no more time than the one above it has", async ({ put, world, http }) => {
  const guest = world.port(0);
  await world.time.run(put(PASSTHROUGH));
  const given = Number(http.asked[0]?.headers.get("x-deadline-ms"));
  assert(given > 0 && given < 30_000, `the vf service has ${given} ms`);
  const hold = Number(world.calls.find((name) => name.startsWith("hold"))?.split(" ")[2]);
  assert(
    hold < given && guest.givenMs.every((ms) => ms < hold),
    `${hold} ms of the NIC, ${guest.givenMs} of the guest`,
  );
});

// A vf service that goes away ----------------------------------------------------------------------------------

bothTest("a line that is lost half-way and comes back loses nothing", async ({ put, world, http }) => {
  world.port(0).tookMs.set("passthrough", 4000);
  const change = put(PASSTHROUGH);
  await world.time.pass(1500);
  http.answer = refused;
  await world.time.pass(2000);
  http.answer = (asked) => reach(world, asked);
  const { status, body } = await world.time.run(change);
  assertEquals([status, body.plugin], [200, "advanced"]);
});

bothTest("an answer that is lost is asked for again: the change is not", async ({ put, world, http }) => {
  world.port(0);
  http.answer = async (asked) => {
    const response = await reach(world, asked);
    return asked.method === "PUT" ? "silence" : response;
  };
  const { status, body } = await world.time.run(put(PASSTHROUGH));
  assertEquals([status, body.plugin], [200, "advanced"]);
  assertEquals(http.asked.filter(({ method }) => method === "PUT").length, 1);
});

bothTest("a vf service that has started again knows nothing of the change: what is in force is told", async (both) => {
  const { put, world, http, pf } = both;
  const guest = world.port(0);
  guest.tookMs.set("passthrough", 4000);
  const change = put(PASSTHROUGH);
  await world.time.pass(1500);
  http.answer = (asked) =>
    asked.path.includes("operations")
      ? new Response(JSON.stringify({ detail: "there is no operation" }), { status: 404 })
      : reach(world, asked);
  const { status, body } = await world.time.run(change);
  assertEquals([status, body.reason, body.inForce], [503, "interrupted", { mode: "passthrough" }] as unknown);
  assert(/whether the change was completed is not known/.test(body.detail), body.detail);
  const [operation] = await pf.get<Operation[]>("operations");
  assertEquals([operation?.state, operation?.steps.at(-1)?.step], ["failed", "vhost lets go of the VF"]);
});

bothTest("a vf service that stays away: neither the change nor the mode is known, and that is said", async (both) => {
  const { put, world, http } = both;
  world.port(0).tookMs.set("passthrough", 4000);
  const change = put(PASSTHROUGH);
  await world.time.pass(1500);
  http.answer = () => "silence";
  const start = world.time.now;
  const { status, body } = await world.time.run(change);
  assertEquals([status, body.reason, body.inForce], [503, "interrupted", null]);
  assert(world.time.now - start < 12_000, "an operation does not wait for ever");
});
