/** Pipes that somebody else owns: written by a thread of their owner's, with which nobody else has to do. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Notifier, PipeRelay } from "../../shared/os/mod.ts";
import { PipeThreads, Wakeups } from "../../services/vhost/wakeups.ts";
import { descriptorsOf, openFileOf } from "../support/open_files.ts";
import { until, within } from "../support/wait.ts";
import { Wakeup } from "../support/wakeup.ts";

/** Which pipe a wake-up is: both its ends have this name. */
function nameOf({ sent }: Wakeup): string {
  return openFileOf(sent.number);
}

/** How many descriptors this process has of these pipes. */
const endsOf = (names: readonly string[]) => descriptorsOf(new Set(names));

/** Ends a relay and waits for its thread. */
async function end(relay: PipeRelay): Promise<void> {
  relay.close();
  await within("the end of the thread", relay.ended);
}

Deno.test("what is raised in a pipe's place arrives in the pipe; when the stand-in is closed, so is the pipe", async () => {
  using notifier = new Notifier();
  const relay = new PipeRelay();
  const wakeups = Array.from({ length: 4 }, () => new Wakeup("pipe"));
  const names = wakeups.map(nameOf);
  const standIns = wakeups.map(({ sent }) => relay.take(sent));
  assert(wakeups.every(({ sent }) => sent.closed), "the pipes are the relay's now");
  for (let round = 0; round < 3; round++) {
    for (const [i, standIn] of standIns.entries()) {
      notifier.raise(standIn);
      await until("the wake-up", () => wakeups[i]?.take());
    }
  }
  assertEquals(endsOf(names), 8);
  standIns[0]?.close();
  await until("the pipe to be closed", () => endsOf(names) === 7);
  notifier.raise(standIns[1] as (typeof standIns)[number]);
  await until("the wake-up of another", () => wakeups[1]?.take());
  await end(relay);
  assertEquals(endsOf(names), 4, "those that are read here");
  for (const wakeup of wakeups) wakeup[Symbol.dispose]();
});

Deno.test("a pipe that nobody reads any more ends nobody: no SIGPIPE, and the others go on", async () => {
  using notifier = new Notifier();
  const relay = new PipeRelay();
  using broken = new Wakeup("pipe");
  using whole = new Wakeup("pipe");
  broken.closeReader();
  const [first, second] = [relay.take(broken.sent), relay.take(whole.sent)];
  for (let i = 0; i < 10; i++) {
    notifier.raise(first);
    notifier.raise(second);
    await until("the wake-up", () => whole.take());
  }
  await end(relay);
});

Deno.test("a full pipe that blocks its writers holds its own thread; nothing is lost when it lets go", async () => {
  using notifier = new Notifier();
  const [held, free] = [new PipeRelay(), new PipeRelay()];
  using hostile = new Wakeup("pipe");
  using honest = new Wakeup("pipe");
  const names = [hostile, honest].map(nameOf);
  hostile.block();
  const [hostileStandIn, honestStandIn] = [held.take(hostile.sent), free.take(honest.sent)];
  for (let i = 0; i < 10; i++) {
    notifier.raise(hostileStandIn);
    notifier.raise(honestStandIn);
    await until("the wake-up of another guest", () => honest.take());
  }
  held.close();
  await end(free);
  hostile.take();
  await within("the end of the thread that was held", held.ended);
  assertEquals(endsOf(names), 2, "those that are read here");
});

Deno.test("a guest that holds its pipes gets so many and no more, and then no other thread", async () => {
  const threads = new PipeThreads();
  using hostile = new Wakeup("pipe");
  hostile.block();
  const first = threads.start();
  const standIn = first.take(hostile.sent);
  using notifier = new Notifier();
  notifier.raise(standIn);
  const more: Wakeup[] = [];
  const taken = Promise.withResolvers<string>();
  for (let i = 0; i < 1000; i++) {
    const wakeup = new Wakeup("pipe");
    more.push(wakeup);
    try {
      first.take(wakeup.sent).close();
    } catch (error) {
      taken.resolve((error as Error).message);
      break;
    }
  }
  assert(/held by their owner: use eventfds/.test(await taken.promise));
  first.close();
  const second = threads.start();
  assertThrows(() => threads.start(), Error, "earlier front-ends still hold the pipes that they sent");
  await end(second);
  hostile.take();
  await within("the end of the thread that was held", first.ended);
  const third = await until("room for another thread", () => threads.start());
  await end(third);
  for (const wakeup of more) wakeup[Symbol.dispose]();
});

Deno.test("a front-end's descriptors: which kinds there may be, and what is raised in their place", () => {
  const wakeups = new Wakeups(new PipeThreads());
  using eventfd = new Wakeup("eventfd");
  using socket = new Wakeup("socket");
  using pipe = new Wakeup("pipe");
  assertEquals(wakeups.raisable(eventfd.sent), eventfd.sent);
  assertThrows(() => wakeups.raisable(socket.sent), Error, "its other end is this service's own");
  assertThrows(() => wakeups.checkKick(socket.sent), Error, "its kick is not an eventfd");
  assertThrows(() => wakeups.checkKick(pipe.sent), Error, "its kick is not an eventfd");
  using standIn = wakeups.raisable(pipe.sent);
  assertEquals(standIn?.kind, "eventfd");
  assertEquals(wakeups.raisable(undefined), undefined);
  wakeups.close();
  assert(standIn?.closed);
});
