/** The OS layer: windows of the arena, eventfds, descriptors over sockets, and the worker that stands still. */
import fc from "fast-check";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Engine } from "../../shared/engine/mod.ts";
import { WINDOWS } from "../../shared/layout/nic.ts";
import {
  Arena,
  ARENA_BYTES,
  ArenaFullError,
  createEventFd,
  createMemfd,
  drainEventFd,
  OsError,
  Reactor,
  signalEventFd,
  UnixListener,
  UnixSocket,
  WINDOW_BYTES,
} from "../../shared/os/mod.ts";
import { check, libc } from "../../shared/os/libc.ts";
import { readMemoryFile, writeMemoryFile } from "../../shared/os/memory_io.ts";

const arena = new Arena(WINDOWS);

Deno.test("windows are aligned by address, never overlap, and all come back", () => {
  const free = arena.freeBytes;
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 1, max: 40 * 1024 ** 2 })), { maxLength: 60, size: "max" }),
      (steps) => {
        const held: { offset: number; bytes: number }[] = [];
        for (const [take, n] of steps) {
          if (take) {
            const window = arena.allocate(n);
            assert(window.bytes >= n && window.bytes % WINDOW_BYTES === 0);
            assertEquals((arena.base + BigInt(window.offset)) % BigInt(WINDOW_BYTES), 0n);
            assert(window.offset >= WINDOWS && window.offset + window.bytes <= ARENA_BYTES);
            for (const other of held) {
              assert(window.offset >= other.offset + other.bytes || other.offset >= window.offset + window.bytes);
            }
            held.push(window);
          } else if (held.length > 0) {
            arena.release(held.splice(n % held.length, 1)[0] as { offset: number; bytes: number });
          }
        }
        for (const window of held) arena.release(window);
        assertEquals(arena.freeBytes, free);
      },
    ),
    { numRuns: 30 },
  );
  assertThrows(() => arena.allocate(ARENA_BYTES), ArenaFullError);
});

Deno.test("a mapped file is the arena's memory, and released pages are zero again", () => {
  using file = createMemfd("test", WINDOW_BYTES);
  const [a, b] = [arena.allocate(WINDOW_BYTES), arena.allocate(WINDOW_BYTES)];
  arena.map(a, file.number, 0, WINDOW_BYTES);
  arena.map(b, file.number, 0, WINDOW_BYTES);
  const bytes = new Uint8Array(arena.buffer);
  bytes[a.offset + 4097] = 77;
  assertEquals(bytes[b.offset + 4097], 77);
  arena.release(a);
  assertEquals(bytes[a.offset + 4097], 0);
  assertEquals(bytes[b.offset + 4097], 77);
  arena.release(b);
});

Deno.test("eventfds count, and drain without waiting", () => {
  using event = createEventFd();
  assertEquals(drainEventFd(event.number), 0n);
  signalEventFd(event.number);
  signalEventFd(event.number);
  assertEquals(drainEventFd(event.number), 2n);
});

Deno.test("descriptors travel over sockets; listeners replace what the dead leave, not the living", async () => {
  const dir = await Deno.makeTempDir();
  await using reactor = new Reactor();
  const path = `${dir}/socket`;
  using listener = UnixListener.listen(path, "seqpacket", reactor);
  assertEquals((await Deno.stat(path)).mode! & 0o777, 0o600);
  using client = UnixSocket.connect(path, "seqpacket", reactor);
  using server = await listener.accept();
  using event = createEventFd();
  client.send(new Uint8Array([1, 2, 3]), [event.number, event.number]);
  const got = await server?.receive(new Uint8Array(16));
  assertEquals([got?.bytes, got?.fds.length], [3, 2]);
  signalEventFd(got?.fds[1]?.number ?? -1);
  assertEquals(drainEventFd(event.number), 1n);
  for (const fd of got?.fds ?? []) fd.close();
  client.send(new Uint8Array(100));
  let cut: unknown;
  await server?.receive(new Uint8Array(16)).catch((error) => cut = error);
  assert(cut instanceof Error, "a message that does not fit is an error");
  assertThrows(() => UnixListener.listen(path, "seqpacket", reactor), Error, "another process listens there");
  listener.close();
  assertThrows(() => UnixSocket.connect(path, "seqpacket", reactor), OsError, "ENOENT");
  await Deno.remove(dir, { recursive: true });
});

Deno.test("the engine stands still twenty thousand times in a row, asleep or awake", async () => {
  for (const spinUs of [0, 1000]) {
    const engine = await Engine.start({ cpus: [], spinUs });
    let changes = 0;
    for (let i = 0; i < 10_000; i++) engine.between(() => changes++);
    assertEquals(changes, 10_000);
    await engine.close();
  }
});

Deno.test("only a socket is taken over: a link, a file or a directory in its place stays, and is named", async () => {
  const dir = Deno.makeTempDirSync();
  const reactor = new Reactor();
  const living = UnixListener.listen(`${dir}/living`, "stream", reactor);
  Deno.symlinkSync(`${dir}/living`, `${dir}/link`);
  Deno.writeTextFileSync(`${dir}/file`, "");
  Deno.mkdirSync(`${dir}/dir`);
  for (const name of ["link", "file", "dir"]) {
    assertThrows(
      () => UnixListener.listen(`${dir}/${name}`, "stream", reactor),
      Error,
      `${dir}/${name}: there is something else than a socket`,
    );
  }
  living.close();
  await reactor.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("a memory file is written where it is meant, whatever its owner says of it, and not beyond its end", () => {
  const O_APPEND = 0o2000;
  const F_SETFL = 4;
  using file = createMemfd("test", 2 * 4096);
  check(libc().fcntl(file.number, F_SETFL, BigInt(O_APPEND)), "fcntl", "test");
  const across = Uint8Array.of(1, 2, 3, 4);
  assertEquals(writeMemoryFile(file.number, 4094, across), true);
  const read = new Uint8Array(4);
  assertEquals([readMemoryFile(file.number, 4094, read), [...read]], [true, [1, 2, 3, 4]]);
  assertEquals(writeMemoryFile(file.number, 2 * 4096 - 1, across), false);
  assertEquals(readMemoryFile(file.number, 2 * 4096, new Uint8Array(1)), false, "it has not grown");
});
