/**
 * A front-end's connection whose process is killed at each point of a request: whoever takes over finds the request executed
 * or not, and its answer sent or not, and there is nothing between.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { duplicateFd } from "../../shared/os/fd.ts";
import { createMemfd, discard, Outbox, Reactor, socketPair, UnixSocket } from "../../shared/os/mod.ts";
import {
  type RequestName,
  REQUESTS,
  VHOST_USER_NEED_REPLY_MASK,
  VHOST_USER_VERSION,
  VhostUserConnection,
} from "../../shared/vhost_user/mod.ts";
import { descriptorsOf, openFileOf } from "../support/open_files.ts";
import { type KeptPart, KeptSocket, type Parts, type Replicated } from "../../services/vhost/standby/mod.ts";

const HEADER_BYTES = 12;
const REPLY_BYTES = HEADER_BYTES + 8;
/** What the front-end sends at once: with a descriptor, without, with. Each is answered. */
const REQUESTED: [RequestName, number][] = [
  ["VHOST_USER_SET_VRING_CALL", 1],
  ["VHOST_USER_GET_FEATURES", 0],
  ["VHOST_USER_SET_VRING_CALL", 1],
];

/** What stops the process: it tells for the nth time, or has told; or it is about to answer its second request. */
type Stop = { before: number } | { behind: number } | { executed: true };

/** Where the process is killed. Its tellings 3 to 5 are about the second request. */
const POINTS: [string, Stop, ((socket: number, outbox: Outbox) => void)?][] = [
  ["it has looked at a request and told nobody", { before: 3 }],
  ["it has told of a request, which is still in the socket", { behind: 3 }],
  ["it has taken a request off the socket", { behind: 3 }, (socket) => discard(socket, HEADER_BYTES)],
  ["it knows that the descriptors are the next request's", { behind: 4 }],
  ["it has executed a request and told nobody", { executed: true }],
  ["an answer is in the outbox, and nobody is told", { before: 5 }],
  ["it has told that a request is done", { behind: 5 }],
  ["it has begun to move an answer out", { behind: 5 }, (_, outbox) => void outbox.take(8)],
  ["an answer has been sent", { before: 6 }],
];

/** A process that serves the connection, until it is killed. */
class Process implements Pick<Replicated, "tell" | "told"> {
  /** What a standby was told last. */
  parts: Parts = {};
  readonly dead = Promise.withResolvers<void>();
  readonly #socket: KeptSocket;
  readonly #executed: string[];
  readonly #stop: Stop | undefined;
  #told = 0;
  #isDead = false;

  constructor(socket: KeptSocket, executed: string[], stop?: Stop) {
    this.#socket = socket;
    this.#executed = executed;
    this.#stop = stop;
    socket.tellBy(this as unknown as Replicated);
  }

  #die(): never {
    this.#isDead = true;
    this.dead.resolve();
    throw new Error("killed");
  }

  tell(): void {
    const stop = this.#stop ?? {};
    this.#told++;
    if (this.#isDead || ("before" in stop && this.#told === stop.before)) this.#die();
    for (const { fds = [] } of Object.values(this.parts)) for (const fd of fds) fd.close();
    this.parts = copyOf({ ...this.#socket.parts, executed: { value: [...this.#executed] } });
    if (!("behind" in stop) || this.#told !== stop.behind) return;
    this.#isDead = true;
    this.dead.resolve();
  }

  get told(): Promise<void> | undefined {
    return this.#isDead ? new Promise(() => {}) : undefined;
  }

  /** Serves as many requests as are left. */
  async run(): Promise<void> {
    const connection = new VhostUserConnection(this.#socket);
    while (this.#executed.length < REQUESTED.length) {
      const message = await connection.receive();
      // The dead do nothing more.
      if (!message || this.#isDead) return;
      this.#executed.push(`${message.name} with ${message.fds.length}`);
      if (this.#stop && "executed" in this.#stop && this.#executed.length === 2) this.#die();
      connection.replyU64(message.name, BigInt(this.#executed.length));
      await connection.finish();
    }
  }
}

/** Parts with descriptors of their own, as a standby has them. */
function copyOf(parts: Parts): Parts {
  return Object.fromEntries(
    Object.entries(parts).map(([name, { value, fds = [] }]) => [
      name,
      { value: structuredClone(value), fds: fds.map(({ number }) => duplicateFd(number)) },
    ]),
  );
}

/** Sends all requests; answers the open files that it has sent with them. */
function sendAll(front: UnixSocket): Set<string> {
  const sent = new Set<string>();
  for (const [name, fds] of REQUESTED) {
    const payload = name === "VHOST_USER_SET_VRING_CALL" ? 8 : 0;
    const words = new Uint32Array((HEADER_BYTES + payload) / 4);
    words.set([REQUESTS[name].number, VHOST_USER_VERSION | VHOST_USER_NEED_REPLY_MASK, payload]);
    using call = createMemfd("call", 4096);
    front.send(new Uint8Array(words.buffer), fds === 1 ? [call.number] : []);
    if (fds === 1) sent.add(openFileOf(call.number));
  }
  return sent;
}

/** The numbers in the answers that there are, of which each was to be one more than the one before. */
function answers(front: UnixSocket): number[] {
  const bytes = new Uint8Array(REPLY_BYTES * (REQUESTED.length + 1));
  const got = front.tryReceive(bytes)?.bytes ?? 0;
  const view = new DataView(bytes.buffer);
  return Array.from({ length: got / REPLY_BYTES }, (_, i) => Number(view.getBigUint64(i * REPLY_BYTES + 12, true)));
}

for (const [where, stop, then] of POINTS) {
  Deno.test(`a connection whose process is killed when ${where} goes on: each request is executed and answered once`, async () => {
    const reactor = new Reactor();
    const [theirs, ours] = socketPair("stream");
    const front = new UnixSocket(theirs, reactor);
    sendAll(front);
    const outbox = Outbox.open();
    const first = new Process(new KeptSocket(new UnixSocket(ours, reactor), outbox), [], stop);
    await Promise.race([first.run().catch(() => {}), first.dead.promise]);
    then?.(ours.number, outbox);
    const { connection, input, executed } = first.parts as Record<string, KeptPart>;
    const next = new Reactor();
    const done = [...executed?.value as string[]];
    const socket = KeptSocket.adopt(connection as KeptPart, input as KeptPart, next);
    await new Process(socket, done).run();
    assertEquals(done, REQUESTED.map(([name, fds]) => `${name} with ${fds}`));
    assertEquals(answers(front), [1, 2, 3]);
    socket.close();
    front.close();
    await Promise.all([reactor.close(), next.close()]);
  });
}

Deno.test("a front-end that leaves before its answer comes, or before its request is taken, leaves no descriptor", async () => {
  const reactor = new Reactor();
  const files = new Set<string>();
  {
    const [theirs, ours] = socketPair("stream");
    const socket = new KeptSocket(new UnixSocket(ours, reactor));
    using inflight = createMemfd("inflight", 4096);
    for (const { number } of [theirs, ours, inflight]) files.add(openFileOf(number));
    socket.send(new Uint8Array(REPLY_BYTES), [inflight.number]);
    theirs.close();
    await assertRejects(() => socket.finish());
    socket.close();
  }
  {
    const [theirs, ours] = socketPair("stream");
    for (const { number } of [theirs, ours]) files.add(openFileOf(number));
    const front = new UnixSocket(theirs, reactor);
    for (const file of sendAll(front)) files.add(file);
    const socket = new KeptSocket(new UnixSocket(ours, reactor));
    // It is told of a request in the moment in which the session ends.
    socket.tellBy({ told: undefined, tell: () => socket.close() } as unknown as Replicated);
    await assertRejects(() => socket.receive(new Uint8Array(HEADER_BYTES)));
    front.close();
  }
  await reactor.close();
  assertEquals(files.size, 5 + REQUESTED.filter(([, fds]) => fds === 1).length);
  assertEquals(descriptorsOf(files), 0);
});
