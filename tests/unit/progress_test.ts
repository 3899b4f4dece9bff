/** What somebody at a terminal waits for: when it is shown, what it says, and how a change is followed to its end. */
import "../support/quiet.ts";
import { assertEquals, assertRejects } from "@std/assert";
import { Command, Option } from "commander";
import type { Operation, Problem, VfMode } from "../../shared/api/mod.ts";
import { Progress } from "../../shared/terminal/progress.ts";
import { Context, failureOf, OUTPUTS, PREFER } from "../../services/cli/context.ts";
import { UsageError } from "../../services/cli/values.ts";
import { FakeFetch, type Reply } from "../support/fake_fetch.ts";
import { VirtualTime } from "../support/virtual_time.ts";

/** What a terminal has been shown, in order. */
class Terminal {
  readonly seen: string[] = [];
  /** Resolves when a line may open; until then it does not. */
  ready: Promise<unknown> = Promise.resolve();

  readonly open = async (text: string) => {
    await this.ready;
    const { seen } = this;
    let now = text;
    return {
      get text() {
        return now;
      },
      set text(value: string) {
        now = value;
        seen.push(value);
      },
      start: () => seen.push("start"),
      clear: () => seen.push("clear"),
      stop: () => seen.push("stop"),
    };
  };
}

Deno.test("nothing is shown for a second, then what is waited for, and it is gone when that is there", async () => {
  using time = new VirtualTime();
  const terminal = new Terminal();
  const progress = new Progress({ open: terminal.open });
  progress.say("one");
  await time.pass(900);
  progress.say("two");
  assertEquals(terminal.seen, []);
  await time.pass(200);
  assertEquals(terminal.seen, ["two", "start"]);
  progress.say("three\x1b[2J\nlines");
  progress.aside(() => terminal.seen.push("a log line"));
  progress.stop();
  progress.stop();
  assertEquals(terminal.seen.slice(2), ["three?[2J?lines", "clear", "a log line", "stop"]);
  progress.say("again");
  await time.pass(500);
  progress.stop();
  await time.pass(5000);
  assertEquals(terminal.seen.length, 6, "what was there within a second is not shown");
});

Deno.test("a line that opens when nothing is waited for any more is not shown", async () => {
  using time = new VirtualTime();
  const terminal = new Terminal();
  const { promise, resolve } = Promise.withResolvers<void>();
  terminal.ready = promise;
  const progress = new Progress({ open: terminal.open });
  progress.say("one");
  await time.pass(2000);
  progress.stop();
  resolve();
  await time.settle();
  assertEquals(terminal.seen, []);
});

Deno.test("what takes this thread's time is shown before it begins", async () => {
  using time = new VirtualTime();
  const terminal = new Terminal();
  const progress = new Progress({ open: terminal.open });
  for (const text of ["one", "two"]) await progress.sayNow(text);
  assertEquals(terminal.seen, ["one", "start", "two"]);
  await time.pass(2000);
  assertEquals(terminal.seen.length, 3, "there is one line");
  progress.stop();
});

Deno.test("a line that cannot be opened is none", async () => {
  using time = new VirtualTime();
  const progress = new Progress({ open: () => Promise.reject(new Deno.errors.NotCapable("env")) });
  progress.say("one");
  await time.pass(2000);
  await progress.sayNow("two");
  progress.stop();
});

Deno.test("where it is not wanted, and where no terminal is, nothing is opened", async () => {
  using time = new VirtualTime();
  const terminal = new Terminal();
  new Progress({ open: terminal.open, isWanted: () => false }).say("one");
  // Standard error of tests is a file or a pipe; if it is a terminal this says nothing.
  if (!Deno.stderr.isTerminal()) new Progress().say("one");
  await time.pass(5000);
  assertEquals(terminal.seen, []);
});

Deno.test("every command has it, and no program is shown any of it", async () => {
  using time = new VirtualTime();
  for (
    const [args, expected] of [[[], true], [["-o", "wide"], true], [["--json"], false], [
      ["-o", "yaml"],
      false,
    ]] as const
  ) {
    const terminal = new Terminal();
    const program = new Command("fabric").option("--json").addOption(new Option("-o, --output <how>").default("table"));
    new Context(program, { open: terminal.open });
    const slow = () => new Promise((resolve) => setTimeout(resolve, 1500));
    program.command("vf").command("look").action(async () => void await slow());
    await time.run(program.parseAsync([...args, "vf", "look"], { from: "user" }));
    assertEquals(terminal.seen, expected ? ["vf look", "start", "stop"] : [], args.join(" "));
  }
});

Deno.test("an answer is shown where the line was", async () => {
  using time = new VirtualTime();
  const terminal = new Terminal();
  const program = new Command("fabric").addOption(new Option("-o, --output <how>").default("table"));
  const context = new Context(program, { open: terminal.open });
  context.progress.say("one");
  await time.pass(1500);
  context.show({}, () => {
    terminal.seen.push("the table");
    return "";
  });
  assertEquals(terminal.seen, ["one", "start", "stop", "the table"]);
});

// Following a change -------------------------------------------------------------------------------------------

const OPERATION: Operation = {
  ...{ id: "7", what: "vf 0 to emulated", state: "running", startedAt: "2026-01-01T00:00:00.000Z" },
  steps: [{ step: "the NIC holds the VF's frames", ms: 1 }],
  now: "the guest stops sending",
};
const RESULT: VfMode = { mode: "emulated", changing: false };

/** A command line, and what it says on the way. */
function commandLine(...args: string[]): { context: Context; said: string[] } {
  const program = new Command("fabric").option("--api <url>").option("--json")
    .addOption(new Option("-o, --output <how>").choices(OUTPUTS).default("table"));
  const context = new Context(program);
  program.parse(["--api", "http://127.0.0.1:1", ...args], { from: "user" });
  const said: string[] = [];
  context.progress.say = (text) => void said.push(text);
  return { context, said };
}

/** Asks for a mode with answers of a PF, one after the other. */
async function follow(replies: (Reply & Record<string, unknown>)[], context: Context) {
  using time = new VirtualTime();
  using http = new FakeFetch();
  http.answer = () => {
    const reply = replies.shift();
    return reply && new Response(JSON.stringify(reply), { status: "id" in reply ? 202 : 200 });
  };
  const { vfs } = context.client.api.v1;
  const asked = vfs[":id"].mode.$put({ param: { id: "0" }, json: { mode: "emulated" } }, PREFER);
  const result = await time.run(context.outcome(asked).then((value) => ({ value }), (error) => ({ error })));
  return { result, asked: http.asked };
}

Deno.test("a change is followed to its end, and each look is said", async () => {
  const { context, said } = commandLine();
  const done = { ...OPERATION, state: "done", result: RESULT };
  const { result, asked } = await follow([OPERATION, OPERATION, done], context);
  assertEquals(result, { value: RESULT });
  assertEquals(asked.map(({ method, path }) => `${method} ${path}`), [
    "PUT /api/v1/vfs/0/mode",
    "GET /api/v1/operations/7",
    "GET /api/v1/operations/7",
  ]);
  assertEquals(asked[0]?.headers.get("prefer"), "respond-async, wait=1");
  assertEquals(new Set(said), new Set(["vf 0 to emulated · the guest stops sending · 1 done"]));
});

Deno.test("what is done in time is followed no further; a failure says what is in force", async () => {
  const { context } = commandLine();
  assertEquals((await follow([{ ...RESULT }], context)).asked.length, 1);
  const problem = { detail: "the guest does not answer", inForce: { mode: "passthrough" } };
  const { result } = await follow([OPERATION, { ...OPERATION, state: "failed", problem }], context);
  const { error } = result as { error: Error };
  await assertRejects(() => Promise.reject(error), UsageError, "the guest does not answer; it is in passthrough mode");
});

Deno.test("what is in force is said in a sentence, or that nobody knows", () => {
  const said = (inForce: Problem["inForce"]) => failureOf({ detail: "no", inForce }, "");
  assertEquals(said(undefined), "no");
  assertEquals(said(null), "no; which mode it is in now is not known");
  assertEquals(said({ mode: "emulated" }), "no; it is in emulated mode");
  assertEquals(
    said({ mode: "passthrough", plugin: "virtio", version: "1.0.0" }),
    "no; it is in passthrough mode, plugin virtio 1.0.0",
  );
});
