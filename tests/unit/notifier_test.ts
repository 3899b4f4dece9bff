/** Interrupts by somebody else's descriptor: raised whatever its owner does to it, and never waited for. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { createEventFd, createMemfd, drainEventFd, kindOf, Notifier } from "../../shared/os/mod.ts";
import type { BlockStart } from "../support/block_worker.ts";
import type { RaiseStart } from "../support/raise_worker.ts";
import { blockWriters } from "../support/eventfd.ts";
import { until, within } from "../support/wait.ts";
import { Wakeup, type WakeupKind } from "../support/wakeup.ts";

const FULL = 0xffff_ffff_ffff_fffen;
const RAISED: WakeupKind[] = ["eventfd", "socket", "seqpacket", "datagram"];

/** Has another thread raise these, `times` times and until they were blocked `blocks` times; throws if it is held. */
async function raiseElsewhere(
  wakeups: readonly Wakeup[],
  times: number,
  blocks = 0,
  words = sharedWords(),
): Promise<void> {
  const url = new URL("../support/raise_worker.ts", import.meta.url);
  const worker = new Worker(url, { type: "module", name: "raise" });
  const raised = Promise.withResolvers<void>();
  worker.addEventListener("message", () => raised.resolve());
  worker.addEventListener("error", (event) => raised.reject(new Error(event.message)));
  const fds = wakeups.map(({ kind, sent }) => ({ number: sent.number, socket: kind !== "eventfd" }));
  worker.postMessage({ fds, times, blocks, words } satisfies RaiseStart);
  try {
    await within("raising", raised.promise);
  } catch (error) {
    // A thread that is held after all is let go, so that the test fails and does not hang.
    for (let i = 0; i < times; i++) for (const wakeup of wakeups) wakeup.take();
    throw error;
  } finally {
    worker.terminate();
  }
}

function sharedWords(): Int32Array<SharedArrayBuffer> {
  return new Int32Array(new SharedArrayBuffer(12));
}

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

Deno.test("a closed notifier leaves no descriptor and no context behind", async () => {
  // Other tests of this process open and close descriptors meanwhile: what this one leaves behind is there each time.
  await until("a round after which there are as many as before", leavesNothing);
});

function leavesNothing(): boolean {
  const contexts = () => Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => line.includes("[aio]"));
  const before = { descriptors: openDescriptors(), contexts: contexts().length };
  {
    using _open = new Notifier();
    if (openDescriptors() !== before.descriptors + 1 || contexts().length !== before.contexts + 1) return false;
  }
  for (let i = 0; i < 20; i++) {
    const notifier = new Notifier();
    using call = createEventFd();
    notifier.raise(call);
    notifier.close();
    notifier.close();
  }
  return openDescriptors() === before.descriptors && contexts().length === before.contexts;
}

Deno.test("kinds of descriptors are told apart without asking the file", () => {
  using file = createMemfd("test", 4096);
  const kinds = (["eventfd", "socket", "seqpacket", "datagram", "pipe"] as const).map((kind) => {
    using wakeup = new Wakeup(kind);
    return kindOf(wakeup.sent.number);
  });
  assertEquals(kinds, ["eventfd", "socket", "socket", "socket", "pipe"]);
  assertEquals(kindOf(file.number), "other");
  assertThrows(() => kindOf(100_000), Error, "readlink");
});

Deno.test("a socket of another family than Unix is not one to send to: its owner can hold its lock", async () => {
  using listener = Deno.listen({ port: 0, hostname: "127.0.0.1" });
  using _client = await Deno.connect({ port: (listener.addr as Deno.NetAddr).port, hostname: "127.0.0.1" });
  const sockets = [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => Number(name)).filter((fd) => {
    try {
      return Deno.readLinkSync(`/proc/self/fd/${fd}`).startsWith("socket:[");
    } catch {
      return false;
    }
  });
  assert(sockets.some((fd) => kindOf(fd) === "other"));
});

for (const kind of RAISED) {
  Deno.test(`whoever waits for its ${kind} is woken`, () => {
    using notifier = new Notifier();
    using wakeup = new Wakeup(kind);
    assertEquals(wakeup.take(), 0n);
    for (const times of [1n, 5n]) {
      for (let i = 0n; i < times; i++) notifier.raise(wakeup.sent);
      assertEquals(wakeup.take(), times);
    }
  });

  Deno.test(`a full ${kind} that blocks its writers holds nobody, and its reader is woken all the same`, async () => {
    using wakeup = new Wakeup(kind);
    wakeup.block();
    await raiseElsewhere([wakeup], 1000);
    assert(wakeup.take() > 0n);
  });
}

Deno.test("a full eventfd stays full: its reader finds it, and nothing has been taken out of it", () => {
  using notifier = new Notifier();
  using call = createEventFd();
  blockWriters(call.number);
  for (let i = 0; i < 100; i++) notifier.raise(call);
  assert(drainEventFd(call.number) >= FULL);
  notifier.raise(call);
  assertEquals(drainEventFd(call.number), 1n, "it goes on afterwards");
});

Deno.test("a full socket keeps what its reader has not read", () => {
  using notifier = new Notifier();
  using call = new Wakeup("socket");
  call.block();
  for (let i = 0; i < 100; i++) notifier.raise(call.sent);
  assert(call.take() > 0n);
  notifier.raise(call.sent);
  assertEquals(call.take(), 1n, "it goes on afterwards");
});

Deno.test("one batch of mixed descriptors, hostile ones among them, reaches every reader once", () => {
  const wakeups = Array.from({ length: 200 }, (_, i) => new Wakeup(RAISED[i % RAISED.length] ?? "eventfd"));
  const [blocked, closed] = [wakeups.filter((_, i) => i % 7 === 0), wakeups.filter((_, i) => i % 11 === 5)];
  for (const wakeup of blocked) wakeup.block();
  for (const wakeup of closed) if (wakeup.kind !== "eventfd") wakeup.closeReader();
  using notifier = new Notifier();
  for (const { kind, sent } of wakeups) {
    if (kind === "eventfd") notifier.addEventFd(sent.number);
    else notifier.addSocket(sent.number);
  }
  notifier.flush();
  for (const [i, wakeup] of wakeups.entries()) {
    if (closed.includes(wakeup) && wakeup.kind !== "eventfd") continue;
    const taken = wakeup.take();
    if (blocked.includes(wakeup)) assert(taken > 0n, `wake-up ${i}, which was full`);
    else assertEquals(taken, 1n, `wake-up ${i}`);
  }
  for (const wakeup of wakeups) wakeup[Symbol.dispose]();
});

Deno.test("raised ten thousand times, in batches of every size, an eventfd has counted every time", () => {
  using notifier = new Notifier();
  using call = createEventFd();
  let raised = 0n;
  let read = 0n;
  for (let batch = 1; raised < 10_000n; batch = batch % 150 + 1) {
    for (let i = 0; i < batch; i++) notifier.addEventFd(call.number);
    notifier.flush();
    raised += BigInt(batch);
    if (batch % 3 === 0) read += drainEventFd(call.number);
  }
  assertEquals(read + drainEventFd(call.number), raised);
});

Deno.test("21 an eventfd that its owner fills, empties and makes blocking at any moment never holds who raises it", async () => {
  using call = new Wakeup("eventfd");
  const words = sharedWords();
  const owner = new Worker(new URL("../support/block_worker.ts", import.meta.url), { type: "module" });
  const ended = new Promise((resolve) => owner.addEventListener("message", resolve));
  owner.postMessage({ fd: call.sent.number, words } satisfies BlockStart);
  try {
    await raiseElsewhere([call], 10_000, 1000, words);
  } finally {
    Atomics.store(words, 0, 1);
    await within("the end of its owner", ended);
    owner.terminate();
  }
});
