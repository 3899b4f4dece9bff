/** A guest that leaves, cancelled at each stage: it runs on in its seat, once, and whoever cancels hears when it does. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ApiError, type GuestSeat } from "../../shared/api/mod.ts";
import { GC_PATH, GUEST_RAM_BYTES_MIN, USER_MEMORY } from "../../shared/layout/guest.ts";
import { Departure, type DepartureParts } from "../../services/guest/migration/departure.ts";

/** A seat whose guest takes its time to stop, and what is done with it. */
class SlowSeat {
  state: GuestSeat = "running";
  readonly done: string[] = [];
  readonly stopping = Promise.withResolvers<void>();
  onConfig: (hasAddress: boolean) => void = () => {};
  mustRun(): void {}
  mustBe(what: string, ...states: GuestSeat[]): void {
    if (!states.includes(this.state)) throw new ApiError(409, `cannot ${what}`, "seat", "wrong-seat");
  }
  async stop(): Promise<void> {
    this.done.push("stop");
    await this.stopping.promise;
  }
  goOn(): Promise<void> {
    this.done.push("go on");
    this.state = "running";
    return Promise.resolve();
  }
  empty(): Promise<void> {
    this.done.push("empty");
    this.state = "waiting";
    return Promise.resolve();
  }
}

/** A guest that leaves, with `pages` pages of its memory written. */
function leaving(pages: number): { seat: SlowSeat; departure: Departure; stream: AsyncGenerator<Uint8Array> } {
  const buffer = new SharedArrayBuffer(GUEST_RAM_BYTES_MIN);
  for (let i = 0; i < pages; i++) new Uint8Array(buffer)[USER_MEMORY + i * 4096] = 1;
  const seat = new SlowSeat();
  const host = { get: (field: number) => field === GC_PATH ? 0 : 1 };
  const parts = { seat, host, machine: { memory: { buffer } } } as unknown as DepartureParts;
  const departure = new Departure(parts, { maxDowntimeMs: 20 });
  return { seat, departure, stream: departure.stream() };
}

/** Reads the stream until the guest is to stop; answers what comes then. */
async function untilStop(stream: AsyncGenerator<Uint8Array>, seat: SlowSeat): Promise<{ next: Promise<unknown> }> {
  for (let i = 0; i < 3; i++) {
    const next = stream.next();
    next.catch(() => {});
    await Promise.race([next, new Promise((resolve) => setTimeout(resolve, 0))]);
    if (seat.done.includes("stop")) return { next };
  }
  throw new Error("it is not stopped");
}

async function sent(): Promise<ReturnType<typeof leaving>> {
  const all = leaving(3);
  all.seat.stopping.resolve();
  for await (const part of all.stream) void part;
  assertEquals([all.seat.state, all.departure.view.now], ["stopped", "the guest is stopped"]);
  return all;
}

Deno.test("a departure that is cancelled while the guest is copied: it has never stood still", async () => {
  const { seat, departure, stream } = leaving(200);
  for (let i = 0; i < 3; i++) await stream.next();
  const { transfer } = departure.view;
  assert(transfer.bytesSent > 0 && transfer.bytesRemaining > 0, JSON.stringify(transfer));
  await departure.cancel("somebody wants it");
  assertEquals([seat.state, seat.done], ["running", []]);
  await assertRejects(() => stream.next(), ApiError, "the guest goes on here: somebody wants it");
  assertEquals([departure.view.state, departure.view.problem?.reason], ["failed", "cancelled"]);
});

Deno.test("a departure that is cancelled while the guest is being stopped: whoever cancels waits until it runs", async () => {
  const { seat, departure, stream } = leaving(3);
  const { next } = await untilStop(stream, seat);
  const heard: string[] = [];
  const both = ["one", "other"].map((who) => departure.cancel("not now").then(() => heard.push(who)));
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals([heard, seat.done], [[], ["stop"]]);
  seat.stopping.resolve();
  await Promise.all(both);
  assertEquals([seat.state, seat.done], ["running", ["stop", "go on"]]);
  await assertRejects(() => next, ApiError, "not now");
});

Deno.test("a departure whose reader goes away, or whose guest does not stop: it runs on", async () => {
  const gone = leaving(200);
  await gone.stream.next();
  await gone.stream.return(undefined);
  assertEquals([gone.seat.state, gone.departure.view.state], ["running", "failed"]);
  const busy = leaving(3);
  const { next } = await untilStop(busy.stream, busy.seat);
  busy.seat.stopping.reject(new ApiError(409, "its frames do not go out"));
  await assertRejects(() => next, ApiError, "its frames do not go out");
  assertEquals([busy.seat.state, busy.departure.view.state], ["running", "failed"]);
});

Deno.test("a departure that is cancelled when everything is sent; when it is handed over, only with the key", async () => {
  const { seat, departure } = await sent();
  await departure.cancel("not now");
  assertEquals([seat.state, seat.done], ["running", ["stop", "go on"]]);
  const over = await sent();
  const key = over.departure.commit();
  assertEquals(over.seat.state, "gone");
  await assertRejects(() => over.departure.cancel("not now"), ApiError, "the guest has arrived");
  await assertRejects(() => over.departure.finish("another"), ApiError, "that is not the key");
  await over.departure.cancel("not now", key);
  assertEquals([over.seat.state, over.seat.done], ["running", ["stop", "go on"]]);
});

Deno.test("a departure that has ended stays as it ended, whoever cancels it late", async () => {
  const { seat, departure } = await sent();
  const key = departure.commit();
  await departure.finish(key);
  await departure.cancel("too late", key);
  assertEquals([seat.state, seat.done, departure.view.state], ["waiting", ["stop", "empty"], "done"]);
});
