/** Operations: what is answered in time and what goes on, how they are looked at, and how many are kept. */
import "../support/quiet.ts";
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ApiError, type Operation, Operations, readPrefer, type Run, type VfMode } from "../../shared/api/mod.ts";
import type { Links } from "../../services/pf/links.ts";
import { TestPf } from "../support/test_pf.ts";
import { VirtualTime } from "../support/virtual_time.ts";

const EMULATED: VfMode = { mode: "emulated", changing: false };
const STEP = { step: "the guest stops sending", ms: 7 };

Deno.test("how long an answer may take is what Prefer says, or ten seconds", () => {
  const said = (header?: string) => {
    const { ms, applied } = readPrefer(header);
    return [ms, applied.done, applied.running];
  };
  const cases: [string | undefined, number, string, string][] = [
    [undefined, 10_000, "", ""],
    ["", 10_000, "", ""],
    ["return=minimal", 10_000, "", ""],
    ["respond-async", 0, "", "respond-async"],
    ["Respond-Async", 0, "", "respond-async"],
    ["respond-async, wait=3", 3000, "wait=3", "respond-async, wait=3"],
    ['wait="3"', 3000, "wait=3", "wait=3"],
    ["wait = 3 ; x=1 , respond-async;y", 3000, "wait=3", "respond-async, wait=3"],
    ["wait=1, wait=9", 1000, "wait=1", "wait=1"],
    ["wait=1000000", 60_000, "wait=60", "wait=60"],
    ["wait=-1", 10_000, "", ""],
    ["wait=1.5", 10_000, "", ""],
    ["wait", 10_000, "", ""],
    ["respond-asynchronously, wait-not=1", 10_000, "", ""],
    [`${",".repeat(1000)}wait=2`, 2000, "wait=2", "wait=2"],
  ];
  for (const [header, ...expected] of cases) assertEquals(said(header), expected, header);
});

// A PF whose vf service is played ------------------------------------------------------------------------------

/** A vf service that takes as long for a change as the test lets it. */
class SlowModes implements Pick<Links["modes"], "get" | "put"> {
  readonly #ends: PromiseWithResolvers<VfMode>[] = [];
  runs: Run[] = [];

  get(): Promise<VfMode> {
    return Promise.resolve(EMULATED);
  }

  put(_port: string, _request: unknown, run: Run): Promise<VfMode> {
    const end = Promise.withResolvers<VfMode>();
    this.#ends.push(end);
    this.runs.push(run);
    return end.promise;
  }

  /** Ends the change that began first of those under way. */
  end(how: VfMode | Error): void {
    const end = this.#ends.shift();
    if (how instanceof Error) end?.reject(how);
    else end?.resolve(how);
  }
}

/** An answer with its headers. */
async function put(pf: TestPf, path: string, prefer?: string): Promise<{ response: Response; body: Operation }> {
  const response = await pf.app.request(`/api/v1/${path}`, {
    method: "PUT",
    headers: { "content-type": "application/json", ...(prefer === undefined ? {} : { prefer }) },
    body: JSON.stringify({ mode: "emulated" }),
  });
  return { response, body: await response.json() };
}

function pfTest(name: string, fn: (pf: TestPf, modes: SlowModes, time: VirtualTime) => Promise<void>): void {
  Deno.test(name, async () => {
    using time = new VirtualTime();
    const modes = new SlowModes();
    await using pf = await time.run(TestPf.start(4, ":memory:", modes as unknown as Links["modes"]));
    await fn(pf, modes, time);
  });
}

pfTest("a change that is done in time is answered with its result", async (pf, modes, time) => {
  const answer = put(pf, "vfs/1/mode");
  await time.pass(4900);
  modes.end(EMULATED);
  const { response, body } = await time.run(answer);
  assertEquals([response.status, body as unknown], [200, EMULATED]);
  assertEquals([response.headers.get("location"), response.headers.get("preference-applied")], [null, null]);
  const [operation] = await pf.get<Operation[]>("operations");
  assertEquals([operation?.what, operation?.state, operation?.result], ["vf 1 to emulated", "done", EMULATED]);
});

pfTest("with respond-async it is answered at once where the operation is, and it goes on", async (pf, modes, time) => {
  const { response, body } = await put(pf, "vfs/2/mode", "respond-async");
  assertEquals(response.status, 202);
  const location = response.headers.get("location") ?? "";
  assertEquals(location, `/api/v1/operations/${body.id}`);
  assertEquals(response.headers.get("preference-applied"), "respond-async");
  assertEquals([body.what, body.state, body.steps, body.endedAt], ["vf 2 to emulated", "running", [], undefined]);
  const look = () => pf.get<Operation>(location.replace("/api/v1/", ""));
  await time.settle();
  for (const run of modes.runs) run.progress = { steps: [STEP], now: "the NIC takes the VF back" };
  const half = await look();
  assertEquals([half.state, half.steps, half.now], ["running", [STEP], "the NIC takes the VF back"]);
  modes.end(EMULATED);
  await time.settle();
  const done = await look();
  assertEquals([done.state, done.steps, done.result, done.now], ["done", [STEP], EMULATED, undefined]);
  assertEquals([Date.parse(done.startedAt) <= Date.parse(done.endedAt ?? ""), done.problem], [true, undefined]);
});

pfTest("one that takes longer than is waited for goes on; its failure is what would have been answered", async (
  pf,
  modes,
  time,
) => {
  const refusal = new ApiError(409, "the plugin failed", "plugin", "plugin-failed", { mode: "emulated" });
  await pf.addVport({ id: 3 });
  const inTime = put(pf, "vports/3/mode");
  await time.settle();
  modes.end(refusal);
  const expected = await time.run(inTime);
  assertEquals([expected.response.status, (expected.body as unknown as ApiError).inForce], [409, { mode: "emulated" }]);

  for (const [prefer, ms, applied] of [[undefined, 10_000, null], ["wait=20", 20_000, "wait=20"]] as const) {
    const start = time.now;
    const { response, body } = await time.run(put(pf, "vports/3/mode", prefer));
    assertEquals([response.status, body.what, body.state], [202, "vport 3 to emulated", "running"]);
    assertEquals([time.now - start, response.headers.get("preference-applied")], [ms, applied]);
    modes.end(refusal);
    await time.settle();
    const failed = await pf.get<Operation>(`operations/${body.id}`);
    assertEquals([failed.state, failed.problem as unknown, failed.result], ["failed", expected.body, undefined]);
  }
});

pfTest("what cannot be is refused before there is an operation", async (pf) => {
  assertEquals((await put(pf, "vfs/9/mode", "respond-async")).response.status, 404);
  assertEquals((await put(pf, "vports/9/mode", "respond-async")).response.status, 404);
  assertEquals(await pf.get<Operation[]>("operations"), []);
  const { status, body } = await pf.ask("GET", "operations/nobody");
  assertEquals([status, body.reason], [404, "unknown-operation"]);
});

// How many are kept --------------------------------------------------------------------------------------------

Deno.test("a hundred operations are kept, the oldest that have ended make room; those under way stay", async () => {
  using time = new VirtualTime();
  const operations = new Operations();
  const end = Promise.withResolvers<VfMode>();
  const long = operations.start("long", () => end.promise);
  for (let i = 0; i < 150; i++) {
    operations.start(`short ${i}`, () => Promise.resolve(EMULATED));
    await time.settle();
  }
  const { list } = operations;
  assertEquals([list.length, list[0]?.what, list.at(-2)?.what, list.at(-1)?.what], [
    ...[100, "short 149", "short 51", "long"],
  ]);
  assertEquals(operations.get(long.id).state, "running");
  end.resolve(EMULATED);
});

Deno.test("those that have ended are forgotten after ten minutes", async () => {
  using time = new VirtualTime();
  const operations = new Operations();
  const { id } = operations.start("one", () => Promise.reject(new ApiError(409, "no")));
  await time.pass(599_000);
  assertEquals(operations.get(id).problem?.detail, "no");
  await time.pass(2000);
  assertThrows(() => operations.get(id), ApiError, "are kept for 10 minutes");
  assertEquals(operations.list, []);
});

Deno.test("no more than a hundred are under way; a name is given once", async () => {
  const operations = new Operations();
  const end = Promise.withResolvers<VfMode>();
  const first = operations.start("one", () => end.promise, "a");
  assertThrows(() => operations.start("other", () => end.promise, "a"), ApiError, "already");
  for (let i = 1; i < 100; i++) operations.start("one", () => end.promise);
  const refused = assertThrows(() => operations.start("too many", () => end.promise), ApiError);
  assertEquals([refused.status, refused.reason], [503, "too-many-operations"]);
  end.reject(new ApiError(409, "no"));
  await assertRejects(() => first.result, ApiError);
  operations.start("room again", () => Promise.resolve(EMULATED));
});

Deno.test("a fault of our own is a failure, too", async () => {
  const run = new Operations().start("one", () => {
    throw new Error("a bug");
  });
  await assertRejects(() => run.result, Error, "a bug");
  assertEquals([run.view.state, run.view.problem?.status, run.view.problem?.detail], ["failed", 500, "a bug"]);
});
