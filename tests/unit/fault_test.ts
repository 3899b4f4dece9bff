/** Memory faults: each is attributed once, to the guest in whose window it happened, however windows change hands. */
import { assertEquals } from "@std/assert";
import { Engine, type QueueState, Tenant, Tenants } from "../../shared/engine/mod.ts";
import { createMemfd, type Fd, WINDOW_BYTES } from "../../shared/os/mod.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";
import { until } from "../support/wait.ts";
import { LIMITS as COMMON } from "../support/limits.ts";

const IOVA = 0x4000_0000n;
const LIMITS = { ...COMMON, bytesMax: 2 * 1024 ** 3 };

/** An engine and two tenants with memory. */
class Rig implements AsyncDisposable {
  readonly engine: Engine;
  readonly tenants: Tenants;
  readonly a: Tenant;
  readonly b: Tenant;

  private constructor(engine: Engine) {
    this.engine = engine;
    this.tenants = new Tenants(engine, () => {});
    [this.a, this.b] = [new Tenant(engine, 0, LIMITS), new Tenant(engine, 1, LIMITS)];
    for (const tenant of [this.a, this.b]) this.tenants.add(tenant);
  }

  static async start(): Promise<Rig> {
    return new Rig(await Engine.start({ cpus: [], spinUs: 0 }));
  }

  /** Maps files one behind the other, whole. */
  share(tenant: Tenant, ...files: [Fd, number][]): void {
    const regions = files.map(([, size], i) => ({
      iova: IOVA + (BigInt(i) << 32n),
      size,
      offset: 0,
      perm: "rw" as const,
    }));
    this.tenants.setMemory(tenant, { op: "dmaSet", regions }, files.map(([fd]) => fd));
  }

  /** Starts a virtqueue whose rings are in the first page. */
  startQueue(tenant: Tenant): void {
    const ring = { op: "queueStart", index: 1, flavour: "split", size: 16, base: 0 } as const;
    const addresses = { desc: IOVA, avail: IOVA + 1024n, used: IOVA + 2048n };
    const rest = {
      resume: false,
      features: 0n,
      packetBytes: 2048,
      headerBytes: 0,
      virtioHeader: false,
      kick: false,
      call: false,
    };
    const request = { ...ring, ...addresses, ...rest };
    this.tenants.startQueue(tenant, request, []);
  }

  queue(tenant: Tenant): QueueState | undefined {
    return tenant.queues.states()[0];
  }

  /** The control thread reads a tenant's memory as the worker would: a page that is gone is a fault. */
  touch({ domain }: Tenant, offset: number, region = 0): void {
    this.engine.view.getUint8((domain.regions[region]?.pointer ?? 0) + offset);
  }

  settle(): void {
    this.engine.between(() => {});
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const tenant of [this.a, this.b]) this.tenants.remove(tenant);
    await this.engine.close();
  }
}

const BYTES = WINDOW_BYTES;

Deno.test("a fault stops the guest whose memory it was, and the next owner of the window never hears of it", async () => {
  await using rig = await Rig.start();
  const { a, b } = rig;
  using first = unsealableMemfd(BYTES);
  using second = unsealableMemfd(BYTES);
  using sealed = createMemfd("sealed", BYTES);
  rig.share(a, [first, BYTES]);
  rig.startQueue(a);
  const window = a.domain.regions[0]?.window.offset;
  resize(first, 4096);
  rig.touch(a, 8192);
  await until("the worker to report it", () => rig.queue(a)?.state === "error");
  assertEquals(rig.queue(a)?.reason, "the guest's memory file was truncated");
  rig.tenants.stopQueue(a, 1);
  rig.share(a);
  rig.share(b, [sealed, BYTES]);
  assertEquals(b.domain.regions[0]?.window.offset, window, "the window was not used again");
  rig.startQueue(b);
  rig.share(a, [second, BYTES]);
  resize(second, 4096);
  rig.touch(a, 8192);
  rig.settle();
  assertEquals([a.domain.poisoned, b.domain.poisoned], [true, false]);
  assertEquals(rig.queue(b)?.state, "running");
});

Deno.test("a fault is attributed before the window changes hands, whatever the change", async () => {
  await using rig = await Rig.start();
  const { a, b } = rig;
  using first = unsealableMemfd(BYTES);
  using sealed = createMemfd("sealed", BYTES);
  for (const change of ["the table", "the tenant"] as const) {
    rig.share(a, [first, BYTES]);
    rig.startQueue(a);
    resize(first, 4096);
    rig.touch(a, 8192);
    if (change === "the table") {
      rig.share(a);
      assertEquals(rig.queue(a)?.reason, "the guest's memory file was truncated");
      rig.tenants.stopQueue(a, 1);
    } else {
      rig.tenants.remove(a);
    }
    rig.share(b, [sealed, BYTES]);
    rig.settle();
    assertEquals(b.domain.poisoned, false, change);
    rig.share(b);
    resize(first, BYTES);
  }
});

Deno.test("a fault of the control thread inside a change is nobody else's either", async () => {
  await using rig = await Rig.start();
  const { a, b } = rig;
  using first = unsealableMemfd(BYTES);
  using sealed = createMemfd("sealed", BYTES);
  rig.share(a, [first, BYTES]);
  resize(first, 4096);
  {
    using nothing = a.domain.stage([], []);
    rig.engine.between(() => {
      rig.touch(a, 8192);
      nothing.commit();
    });
  }
  rig.share(b, [sealed, BYTES]);
  rig.settle();
  assertEquals(b.domain.poisoned, false);
  rig.share(a, [first, 4096]);
  rig.startQueue(a);
  resize(first, 0);
  // To stop a queue is to write to its ring.
  rig.tenants.stopQueue(a, 1);
  rig.settle();
  assertEquals([a.domain.poisoned, b.domain.poisoned], [true, false]);
});

Deno.test("a thousand faults of one guest do not hide one of another", async () => {
  await using rig = await Rig.start();
  const { a, b } = rig;
  using sealed = createMemfd("sealed", BYTES);
  const pieces = 1000;
  using large = unsealableMemfd(pieces * WINDOW_BYTES);
  using small = unsealableMemfd(BYTES);
  rig.share(a, [large, pieces * WINDOW_BYTES]);
  rig.share(b, [sealed, BYTES], [small, BYTES]);
  resize(small, 4096);
  rig.touch(b, 8192, 1);
  resize(large, 4096);
  const before = rig.engine.faults().count;
  for (let piece = 0; piece < pieces; piece++) rig.touch(a, piece * WINDOW_BYTES + 8192);
  rig.settle();
  assertEquals(rig.engine.faults().count - before, pieces);
  assertEquals([a.domain.poisoned, b.domain.poisoned], [true, true]);
  assertEquals(b.domain.regions.map(({ poisoned }) => poisoned), [false, true]);
});
