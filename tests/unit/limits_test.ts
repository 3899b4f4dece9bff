/**
 * What one guest may have (shared/engine/limits.ts): who asks for more is refused by the limit's name and keeps what it
 * has; the others get theirs whatever it does.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { Engine, Tenant, Tenants } from "../../shared/engine/mod.ts";
import type { StartRequest } from "../../shared/engine/queue_request.ts";
import { limitArguments, limitCommand, limitsOf } from "../../shared/api/limits.ts";
import { createMemfd } from "../../shared/os/mod.ts";
import { P_OVERRUN, POOL_STRIDE, POOLS } from "../../shared/layout/nic.ts";
import { Command } from "commander";
import { LIMITS } from "../support/limits.ts";

const MIB = 1024 ** 2;
const IOVA = 0x4000_0000n;

/** An engine and its tenants. */
class World {
  readonly engine: Engine;
  readonly tenants: Tenants;
  readonly #limits: typeof LIMITS;

  constructor(engine: Engine, limits: typeof LIMITS, pools: number) {
    this.engine = engine;
    this.#limits = limits;
    this.tenants = new Tenants(engine, () => {});
    this.tenants.poolsMax = () => pools;
  }

  /** Lets a guest with memory into a pool. */
  enter(pool: number, bytes = 8 * MIB): Tenant {
    const tenant = new Tenant(this.engine, pool, this.#limits);
    this.tenants.add(tenant);
    if (bytes > 0) this.share(tenant, bytes);
    return tenant;
  }

  share(tenant: Tenant, bytes: number): void {
    using file = createMemfd("guest", bytes);
    const regions = [{ iova: IOVA, size: bytes, offset: 0, perm: "rw" as const }];
    this.tenants.setMemory(tenant, { op: "dmaSet", regions }, [file]);
  }

  /** Adds a region of so many bytes, in whole windows. */
  add(tenant: Tenant, bytes: number): void {
    const size = Math.floor(bytes / (2 * MIB)) * 2 * MIB;
    using file = createMemfd("more", size);
    const region = { iova: IOVA * 2n, size, offset: 0, perm: "rw" as const };
    this.tenants.mapMemory(tenant, { op: "dmaMap", region }, file);
  }

  /** Starts a split queue; each has its rings in a MiB of its own. */
  start(tenant: Tenant, index: number, size: number): void {
    const desc = IOVA + BigInt(index * MIB);
    const request: StartRequest = {
      ...{ op: "queueStart", index, flavour: "split", size, base: 0, features: 0n, resume: false },
      ...{ desc, avail: desc + 0x80000n, used: desc + 0xa0000n },
      ...{ packetBytes: 2048, headerBytes: 0, virtioHeader: false, kick: false, call: false },
    };
    this.tenants.startQueue(tenant, request, []);
  }

  usage({ pool }: Tenant) {
    return this.tenants.usage(pool, this.#limits);
  }

  /** A driver has no room for its frames: what the engine does then. */
  overrun({ pool }: Tenant): void {
    this.engine.view.setUint32(POOLS + pool * POOL_STRIDE + P_OVERRUN, 1, true);
    this.engine.onReport("queue-error");
  }
}

function test(name: string, limits: Partial<typeof LIMITS>, body: (world: World) => void, pools = 4): void {
  Deno.test(name, async () => {
    const engine = await Engine.start({ cpus: [], spinUs: 0 });
    try {
      body(new World(engine, { ...LIMITS, bytesMax: 2048 * MIB, ...limits }, pools));
    } finally {
      await engine.close();
    }
  });
}

function refuses(code: string, message: RegExp, ask: () => void): void {
  const error = assertThrows(ask, DeviceRefusal);
  assertEquals(error.code, code);
  assert(message.test(error.message), error.message);
}

test("receive rings have so many entries together, transmit rings have their own", { receivesMax: 512 }, (world) => {
  const [greedy, other] = [world.enter(0), world.enter(1)];
  world.start(greedy, 0, 256);
  world.start(greedy, 2, 128);
  refuses(
    "receive-limit",
    /queue 4 of size 256: 384 are in use, and there may be 512 entries of receive rings.*--vf-receives/,
    () => world.start(greedy, 4, 256),
  );
  world.start(greedy, 4, 128);
  world.start(greedy, 1, 1024);
  assertEquals(world.usage(greedy).receives, { used: 512, limit: 512, posted: 0 });
  assertEquals(world.usage(greedy).submissions.used, 1024);
  assertEquals(world.usage(greedy).refused, { "receive-limit": 1 });
  world.start(other, 0, 512);
  assertEquals([world.usage(other).receives.used, world.usage(other).refused], [512, {}], "the other has its own");
});

test("what a queue gives back when it stops, or does not start, may be had again", { submissionsMax: 256 }, (world) => {
  const guest = world.enter(0);
  for (let round = 0; round < 3; round++) {
    world.start(guest, 1, 256);
    refuses("submission-limit", /transmit rings.*--vf-submissions/, () => world.start(guest, 3, 2));
    world.tenants.stopQueue(guest, 1);
    refuses("bad-ring", /./, () => world.start(guest, 31, 256));
  }
  assertEquals(world.usage(guest).submissions.used, 0);
  world.start(guest, 1, 256);
  world.tenants.remove(guest);
  const next = world.enter(0);
  assertEquals(world.usage(next).submissions.used, 0, "the next guest begins anew");
  assertEquals(world.usage(next).refused, { "submission-limit": 3 }, "what was refused on this VF stays counted");
});

test("memory and its regions: the limit and the use are told, refusals counted", { bytesMax: 16 * MIB }, (world) => {
  const guest = world.enter(0);
  assertEquals(world.usage(guest).memory, { used: 8 * MIB, limit: 16 * MIB });
  refuses("memory-limit", /may map at most/, () => world.share(guest, 18 * MIB));
  refuses("memory-limit", /may map at most/, () => world.share(guest, 20 * MIB));
  assertEquals(world.usage(guest).memory.used, 8 * MIB, "it keeps what it has");
  assertEquals(world.usage(guest).refused, { "memory-limit": 2 });
});

test("frames that wait for a guest are its own memory: they take nothing of what is kept for others", {
  bytesMax: 4096 * MIB,
}, (world) => {
  const [large, waiting] = [world.enter(0, 0), world.enter(1)];
  world.start(waiting, 0, 256);
  const buffer = waiting.queues.buffer.windowBytes;
  assert(buffer > 4 * MIB && buffer <= 6 * MIB, `${buffer} bytes`);
  assertEquals(waiting.windowBytes, 8 * MIB + buffer);
  // The large one takes all that is nobody's part. Then there is no room for frames that would wait for it.
  const part = Math.floor((4096 * MIB - 22 * MIB) / 2 / 4 / MIB);
  let bytes = 4000;
  while (bytes > 0) {
    try {
      world.share(large, bytes * MIB);
      break;
    } catch (error) {
      assert(error instanceof DeviceRefusal && error.code === "arena-share");
      bytes -= 2;
    }
  }
  assert(bytes > 2 * part, `the large one has ${bytes} MiB`);
  world.start(large, 0, 256);
  world.overrun(large);
  assertEquals(large.queues.buffer.windowBytes, 0);
  for (const pool of [2, 3]) world.enter(pool, (part - 1) * MIB);
  world.add(waiting, part * MIB - waiting.windowBytes - MIB);
});

test(
  "frames wait as long as there is room for them by the limit: none at all if it is 0",
  { bufferBytesMax: 0 },
  (world) => {
    const guest = world.enter(0);
    world.start(guest, 0, 256);
    world.overrun(guest);
    assertEquals([guest.queues.buffer.isThere, world.usage(guest).buffered], [false, { used: 0, limit: 0 }]);
  },
);

test("with many VFs each has as much room for frames as any other", {}, (world) => {
  const guests = Array.from({ length: 100 }, (_, pool) => world.enter(pool, 2 * MIB));
  for (const guest of guests) world.start(guest, 0, 256);
  assertEquals(guests.filter(({ queues }) => queues.buffer.isThere).length, 100);
  assertEquals(new Set(guests.map((guest) => world.usage(guest).buffered.limit)), new Set([MIB]));
}, 256);

Deno.test("limits are options of up and of the services, and up hands on what was said", () => {
  const parse = (areServices: boolean, ...args: string[]) =>
    limitCommand(new Command().exitOverride().configureOutput({ writeErr: () => {} }), areServices)
      .parse(args, { from: "user" }).opts();
  const said = ["--vf-receives", "512", "--vf-buffer-kib", "0"];
  assertEquals(limitArguments(parse(false, ...said) as never), said);
  assertEquals(limitsOf(parse(true, ...said, "--sealed-only") as never), {
    ...{ bytesMax: 2048 * MIB, receivesMax: 512, submissionsMax: 524_288, bufferBytesMax: 0, sealedOnly: true },
  });
  for (const wrong of [["--vf-receives", "0"], ["--vf-submissions", "many"], ["--vf-buffer-kib", "16385"]]) {
    assertThrows(() => parse(true, ...wrong), Error, "It is a number from");
  }
});
