/** The dirty log of a pool: what is taken for one, what is refused, and that what was replaced is written no more. */
import { assertEquals, assertThrows } from "@std/assert";
import { Engine, Tenant, Tenants } from "../../shared/engine/mod.ts";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { createEventFd, createMemfd, type Fd } from "../../shared/os/mod.ts";
import { SharedMemory } from "../support/front_end.ts";
import { LIMITS } from "../support/limits.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";
import { until } from "../support/wait.ts";

const IOVA = 0x4000_0000n;
const MEMORY_BYTES = 1024 ** 2;
/** A bit for each page up to the memory's end. */
const LOG_BYTES = Number((IOVA + BigInt(MEMORY_BYTES)) >> 15n);
const FIRST_PAGE = Number(IOVA >> 12n);
const USED_LOG = IOVA + 0x5000n;

/** A tenant with a transmit queue, whose rings are in the first page of its memory. */
class Rig implements AsyncDisposable {
  readonly engine: Engine;
  readonly tenants: Tenants;
  readonly tenant: Tenant;
  readonly memory = new SharedMemory(MEMORY_BYTES);

  private constructor(engine: Engine) {
    this.engine = engine;
    this.tenants = new Tenants(engine, () => {});
    this.tenant = new Tenant(engine, 0, { ...LIMITS, bytesMax: 2 * 1024 ** 3 });
    this.tenants.add(this.tenant);
    const regions = [{ iova: IOVA, size: MEMORY_BYTES, offset: 0, perm: "rw" as const }];
    this.tenants.setMemory(this.tenant, { op: "dmaSet", regions }, [this.memory.fd]);
  }

  static async start(): Promise<Rig> {
    return new Rig(await Engine.start({ cpus: [], spinUs: 0 }));
  }

  startQueue(flavour: "split" | "packed" = "split"): void {
    this.tenants.startQueue(this.tenant, {
      ...{ op: "queueStart", index: 1, flavour, size: 16, resume: false, features: 0n },
      ...{ base: flavour === "packed" ? 0x80008000 : 0, desc: IOVA, avail: IOVA + 1024n, used: IOVA + 2048n },
      ...{ packetBytes: 2048, headerBytes: 0, virtioHeader: false, kick: false, call: false, log: USED_LOG },
    }, []);
  }

  startLog(file: Fd, size = LOG_BYTES, offset = 0): void {
    this.tenants.serveLog(this.tenant, { op: "logStart", offset, size }, [file]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.tenants.remove(this.tenant);
    await this.engine.close();
    this.memory[Symbol.dispose]();
  }
}

/** Pages of the guest's memory that are logged, from its first one on. */
function pages({ view }: SharedMemory, offset = 0): number[] {
  const all = Array.from({ length: MEMORY_BYTES >> 12 }, (_, page) => page);
  return all.filter((page) => (view.getUint8(offset + ((FIRST_PAGE + page) >> 3)) >> (page & 7)) & 1);
}

Deno.test("a log that starts while a ring runs has all of the ring that a device writes, at the log address", async () => {
  await using rig = await Rig.start();
  using log = new SharedMemory(LOG_BYTES);
  rig.startQueue();
  assertEquals(pages(log), []);
  rig.startLog(log.fd);
  assertEquals(pages(log), [5]);
});

Deno.test("a ring that starts or stops while a log is on is logged; a packed one with its descriptors", async () => {
  for (const flavour of ["split", "packed"] as const) {
    await using rig = await Rig.start();
    using log = new SharedMemory(LOG_BYTES);
    rig.startLog(log.fd);
    const clear = () => new Uint8Array(log.view.buffer).fill(0);
    for (const change of [() => rig.startQueue(flavour), () => rig.tenants.stopQueue(rig.tenant, 1)]) {
      clear();
      change();
      assertEquals(pages(log), flavour === "packed" ? [0, 5] : [5], flavour);
    }
  }
});

Deno.test("a ring is logged where it says now, or not at all", async () => {
  await using rig = await Rig.start();
  using log = new SharedMemory(LOG_BYTES);
  rig.startQueue();
  const queueLog = (log?: bigint) =>
    rig.tenants.serveLog(rig.tenant, { op: "queueLog", index: 1, ...(log === undefined ? {} : { log }) }, []);
  queueLog(IOVA + 0x8000n);
  rig.startLog(log.fd);
  assertEquals(pages(log), [8]);
  queueLog();
  rig.startLog(log.fd);
  new Uint8Array(log.view.buffer).fill(0);
  rig.tenants.stopQueue(rig.tenant, 1);
  assertEquals(pages(log), []);
});

Deno.test("a log lies in its file where it says; the one that it replaces is written no more, nor one that is stopped", async () => {
  await using rig = await Rig.start();
  const OFFSET = 4096;
  using first = new SharedMemory(LOG_BYTES);
  using second = new SharedMemory(OFFSET + LOG_BYTES);
  const written = (iova: bigint) => rig.tenants.serveLog(rig.tenant, { op: "logWritten", iova, size: 1 }, []);
  const before = rig.tenant.windowBytes;
  rig.startLog(first.fd);
  written(IOVA);
  rig.startLog(second.fd, LOG_BYTES, OFFSET);
  written(IOVA + 0x1000n);
  rig.tenants.serveLog(rig.tenant, { op: "logStop" }, []);
  written(IOVA + 0x2000n);
  assertEquals([pages(first), pages(second, OFFSET)], [[0], [1]]);
  assertEquals(rig.tenant.windowBytes, before, "what it took of the arena is given back");
});

Deno.test("16 a log that is no file in memory, too small, beyond its file or beyond all numbers is refused", async () => {
  await using rig = await Rig.start();
  using log = new SharedMemory(LOG_BYTES);
  using event = createEventFd();
  using huge = createMemfd("ringfabric-test", 64 * 1024 ** 2);
  const cases: [Fd, number, number, string, RegExp][] = [
    [
      log.fd,
      LOG_BYTES - 1,
      0,
      "log-too-small",
      /is for guest addresses below 0x400f8000, and the memory ends at 0x401/,
    ],
    [log.fd, 0, 0, "log-too-small", /a dirty log of 0 bytes/],
    [log.fd, LOG_BYTES, 1, "past-end", /the dirty log/],
    [log.fd, LOG_BYTES, Number.MAX_SAFE_INTEGER, "past-end", /the dirty log/],
    [huge, 64 * 1024 ** 2, 0, "log-limit", /it may have 33554432/],
    [event, LOG_BYTES, 0, "bad-fd", /the dirty log: its descriptor is not a file in memory/],
  ];
  for (const [file, size, offset, code, message] of cases) {
    const error = assertThrows(() => rig.startLog(file, size, offset), DeviceRefusal);
    assertEquals([error.code, message.test(error.message)], [code, true], error.message);
  }
  assertEquals(rig.tenant.log.isOn, false);
});

Deno.test("16 memory that a log does not hold stops the queue that is written there, and no byte beside the log", async () => {
  await using rig = await Rig.start();
  using log = new SharedMemory(LOG_BYTES);
  rig.startQueue();
  rig.startLog(log.fd);
  rig.tenants.serveLog(rig.tenant, { op: "queueLog", index: 1, log: IOVA << 8n }, []);
  rig.tenants.stopQueue(rig.tenant, 1);
  rig.tenants.startQueue(rig.tenant, {
    ...{ op: "queueStart", index: 1, flavour: "split", size: 16, resume: false, features: 0n, base: 0 },
    ...{ desc: IOVA, avail: IOVA + 1024n, used: IOVA + 2048n, log: 0xffff_ffff_ffff_fff0n },
    ...{ packetBytes: 2048, headerBytes: 0, virtioHeader: false, kick: false, call: false },
  }, []);
  const [queue] = rig.tenant.queues.states();
  assertEquals([queue?.state, queue?.reason], ["error", "the dirty log has no bit for an address that was written"]);
});

Deno.test("16 a log that is truncated while it is written stops its guest with the reason", async () => {
  await using rig = await Rig.start();
  const file = unsealableMemfd(LOG_BYTES);
  using _ = file;
  rig.startQueue();
  rig.startLog(file);
  resize(file, 0);
  rig.tenants.serveLog(rig.tenant, { op: "logWritten", iova: IOVA, size: 1 }, []);
  await until("the queue to stop", () => {
    rig.engine.between(() => {});
    return rig.tenant.queues.states()[0]?.state === "error";
  });
  assertEquals(rig.tenant.queues.states()[0]?.reason, "the dirty log's file was truncated");
});
