/** Guests' wishes on their way to the PF: who waits, for how long, and what the PF hears when it comes back. */
import { assert, assertEquals } from "@std/assert";
import type { WishEvent } from "../../shared/api/mod.ts";
import { portLog } from "../../services/vhost/port_log.ts";
import { Wishes } from "../../services/vhost/wishes.ts";
import { until } from "../support/wait.ts";

const never = () => new AbortController().signal;

/** A PF that hears wishes and answers none by itself. */
function listen(wishes: Wishes): { heard: WishEvent[]; leave: () => void } {
  const heard: WishEvent[] = [];
  return { heard, leave: wishes.subscribe((event) => void (event.type === "wish" && heard.push(event))) };
}

Deno.test("a wish waits for the PF's answer, and the PF knows how long", async () => {
  const wishes = new Wishes();
  assertEquals(await wishes.ask(3, { promisc: true }, never()), "the PF is away");
  const { heard } = listen(wishes);
  const refusal = wishes.ask(3, { promisc: true }, never());
  const { id, port, wish, until: end } = await until("the wish", () => heard[0]);
  assertEquals([port, wish], [3, { promisc: true }]);
  assert(end !== undefined && end > Date.now());
  assertEquals(wishes.answer(id, { granted: false, reason: "not trusted" }), true);
  assertEquals(await refusal, "not trusted");
  assertEquals(wishes.answer(id, { granted: true }), false, "nobody waits any more");
});

Deno.test("whoever's queue stops waits no longer", async () => {
  const wishes = new Wishes();
  const { heard } = listen(wishes);
  const stop = new AbortController();
  const refusal = wishes.ask("vport1", { promisc: true }, stop.signal);
  await until("the wish", () => heard[0]);
  stop.abort();
  assertEquals(await refusal, "its queue has stopped");
  assertEquals(await wishes.ask("vport1", { promisc: true }, stop.signal), "its queue has stopped");
  assertEquals(heard.length, 1);
});

Deno.test("asking and stopping again and again costs whoever asks next nothing", async () => {
  const wishes = new Wishes();
  const { heard } = listen(wishes);
  for (let i = 0; i < 5000; i++) {
    const stop = new AbortController();
    const refusal = wishes.ask(3, { promisc: true }, stop.signal);
    stop.abort();
    assertEquals(await refusal, "its queue has stopped");
  }
  assertEquals(heard, []);
  const asked = wishes.ask(3, { promisc: true }, never());
  wishes.answer((await until("the wish", () => heard[0])).id, { granted: true });
  assertEquals(await asked, undefined);
});

Deno.test("a front-end that stops and starts its rings all the time floods nobody with its pauses, and delays no other", async () => {
  const wishes = new Wishes();
  const heard: unknown[] = [];
  const leave = wishes.subscribe((event) => void (event.type === "guest-paused" && heard.push(event.port)));
  for (let i = 0; i < 10_000; i++) {
    void wishes.paused(3);
    await Promise.resolve();
  }
  // As many as a guest may wish at once, and one that waits for its turn.
  assert(heard.length > 1 && heard.length <= 70, `${heard.length} were told`);
  await wishes.paused(4);
  assertEquals(heard.at(-1), 4);
  leave();
  await until("the last one's turn", () => wishes.paused(3).then(() => true));
});

Deno.test("what a guest that is gone wished is told until the PF has forgotten it", async () => {
  const wishes = new Wishes();
  wishes.forget(3);
  wishes.forget("vport1");
  const first = listen(wishes);
  const forgotten = { promisc: false, multicast: null };
  assertEquals(first.heard.map(({ port, wish }) => [port, wish]), [[3, forgotten], ["vport1", forgotten]]);
  for (const { id, port } of first.heard) wishes.answer(id, { granted: port === 3, reason: "the NIC is away" });
  await Promise.resolve();
  first.leave();
  await new Promise((resolve) => setTimeout(resolve));
  const second = listen(wishes);
  assertEquals(second.heard.map(({ port }) => port), ["vport1"]);
  wishes.answer(second.heard[0]?.id ?? "", { granted: true });
  await new Promise((resolve) => setTimeout(resolve));
  second.leave();
  assertEquals(listen(wishes).heard, []);
});

Deno.test("the PF is told of 64 further addresses at most", async () => {
  const wishes = new Wishes();
  const { heard } = listen(wishes);
  const unicast = Array.from({ length: 2700 }, () => "02:00:00:00:00:01");
  const stop = new AbortController();
  const refusal = wishes.ask(0, { unicast }, stop.signal);
  assertEquals((await until("the wish", () => heard[0])).wish.unicast?.length, 64);
  stop.abort();
  await refusal;
});

Deno.test("a port that has too much to say is cut short, and how much is missing is told", () => {
  const lines: string[] = [];
  let now = 0;
  const say = portLog("vf 3", (_level, _who, message) => void lines.push(message), () => now);
  for (let i = 0; i < 100; i++) say("warn", `refused ${i}`);
  assertEquals(lines.length, 20);
  now = 2000;
  say("info", "a front-end connected");
  assertEquals(lines.at(-1), "vf 3: a front-end connected (80 lines before it were left out)");
});
