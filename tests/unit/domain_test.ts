/** Memory tables: staged, committed and ended, over a real arena and real files; and what the engine's pauses are free of. */
import fc from "fast-check";
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { Domain, Engine, type StagedTable, Tenant, Tenants } from "../../shared/engine/mod.ts";
import { DeviceRefusal, type MemoryRegion } from "../../shared/device/mod.ts";
import {
  DOMAINS,
  P_REGION_COUNT,
  POOLS,
  REGION_IOVA,
  REGION_SIZE,
  REGION_STRIDE,
  REGION_WINDOW,
  WINDOWS,
} from "../../shared/layout/nic.ts";
import { Arena, createMemfd, type Fd, WINDOW_BYTES } from "../../shared/os/mod.ts";
import { LIMITS as COMMON } from "../support/limits.ts";

const PAGE = 4096;
const FILE_BYTES = 2 * WINDOW_BYTES;
const LIMITS = { ...COMMON, bytesMax: 32 * WINDOW_BYTES };

const arena = new Arena(WINDOWS);
const view = new DataView(arena.buffer);
// Each page of each file says which one it is.
const files = [0, 1, 2].map((file) => numberedFile(file));
const shortFile = createMemfd("shorter than it says", PAGE);

function numberedFile(file: number): Fd {
  const fd = createMemfd(`file ${file}`, FILE_BYTES);
  const window = arena.allocate(FILE_BYTES);
  arena.map(window, fd.number, 0, FILE_BYTES);
  for (let at = 0; at < FILE_BYTES; at += PAGE) view.setUint32(window.offset + at, pageName(file, at), true);
  arena.release(window);
  return fd;
}

function pageName(file: number, offset: number): number {
  return ((file + 1) << 24) + offset / PAGE;
}

/** A table as a guest may ask for it, right or wrong; slots keep the regions apart, or do not. */
interface Wish {
  slot: number;
  file: number;
  page: number;
  pages: number;
}

const wish = fc.record({
  slot: fc.nat(7),
  // The last file is too short for any region.
  file: fc.nat(9).map((n) => Math.min(n % 4, 3)),
  page: fc.integer({ min: 1, max: 40 }),
  pages: fc.integer({ min: 1, max: 700 }),
});

function toRegion({ slot, page, pages }: Wish): MemoryRegion {
  return { iova: BigInt(slot) * 0x1000_0000n, size: pages * PAGE, offset: page * PAGE, perm: "rw" };
}

function toFd({ file }: Wish): Fd {
  return files[file] ?? shortFile;
}

/** What the engine reads, which must be the guest's files, and what the arena has left. */
function checkTable(domain: Domain, wishes: readonly Wish[], free: number): void {
  assertEquals(view.getUint32(POOLS + P_REGION_COUNT, true), wishes.length);
  // The engine searches the regions by address.
  const sorted = wishes.toSorted((a, b) => toRegion(a).iova < toRegion(b).iova ? -1 : 1);
  sorted.forEach((wish, i) => {
    const at = DOMAINS + i * REGION_STRIDE;
    const { iova, size } = toRegion(wish);
    assertEquals(view.getBigUint64(at + REGION_IOVA, true), iova);
    assertEquals(view.getBigUint64(at + REGION_SIZE, true), BigInt(size));
    const pointer = view.getUint32(at + REGION_WINDOW, true);
    for (const page of [0, wish.pages - 1]) {
      assertEquals(view.getUint32(pointer + page * PAGE, true), pageName(wish.file, (wish.page + page) * PAGE));
    }
  });
  const mapped = domain.regions.reduce((sum, { window }) => sum + window.bytes, 0);
  assertEquals(arena.freeBytes, free - mapped);
}

const key = ({ file, page, pages }: Wish) => `${file}.${page}.${pages}`;

/** What a guest asks for next: a table of its own or with some of what it has, one region more, or one less. */
interface Step {
  kind: "table" | "one more" | "one less";
  wishes: Wish[];
  keep: number;
  commit: boolean;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom("table", "table", "one more", "one less"),
  wishes: fc.uniqueArray(wish, { minLength: 1, maxLength: 6, selector: key }),
  keep: fc.nat(3),
  commit: fc.nat(4).map((n) => n > 0),
});

/** Stages what a step asks for; answers it, and the table that it makes. Throws DeviceRefusal. */
function stage(domain: Domain, inForce: readonly Wish[], { kind, wishes, keep }: Step): [StagedTable, Wish[]] {
  const [wish, last] = [wishes[0] as Wish, inForce.at(-1)];
  if (kind === "one more") return [domain.stageWith(toRegion(wish), toFd(wish)), [...inForce, wish]];
  if (kind === "one less") {
    const { iova, size } = toRegion(last ?? wish);
    return [domain.stageWithout(iova, size), inForce.slice(0, -1)];
  }
  const kept = inForce.slice(0, keep).filter((old) => !wishes.some((wish) => key(wish) === key(old)));
  const next = [...kept, ...wishes];
  return [domain.stage(next.map(toRegion), next.map(toFd)), next];
}

/** By region, the windows of the table in force. */
function windows(domain: Domain, inForce: readonly Wish[]): Map<string, number> {
  return new Map(domain.regions.map(({ window }, i) => [key(inForce[i] as Wish), window.offset]));
}

Deno.test("whatever tables are asked for, one is in force: the last that was good; what stays keeps its window", () => {
  const free = arena.freeBytes;
  const seen = { refused: 0, committed: 0, dropped: 0, stayed: 0 };
  fc.assert(
    fc.property(fc.array(step, { minLength: 1, maxLength: 12, size: "max" }), (steps) => {
      const domain = new Domain(arena, 0, LIMITS);
      let inForce: Wish[] = [];
      for (const step of steps) {
        const before = windows(domain, inForce);
        try {
          const [table, next] = stage(domain, inForce, step);
          using staged = table;
          if (step.commit) {
            staged.commit();
            inForce = next;
          }
          seen[step.commit ? "committed" : "dropped"]++;
        } catch (error) {
          if (!(error instanceof DeviceRefusal)) throw error;
          seen.refused++;
        }
        for (const [region, offset] of windows(domain, inForce)) {
          if (!before.has(region)) continue;
          assertEquals(offset, before.get(region), "a region that stays lost its window");
          seen.stayed++;
        }
        checkTable(domain, inForce, free);
      }
      using nothing = domain.stage([], []);
      nothing.commit();
    }),
    { numRuns: 150 },
  );
  assertEquals(arena.freeBytes, free);
  assert(Object.values(seen).every((count) => count > 20), JSON.stringify(seen));
});

Deno.test("a table that does not fit is refused, gives back what it had mapped, and leaves the one before", () => {
  const free = arena.freeBytes;
  const domain = new Domain(arena, 0, { ...LIMITS, bytesMax: Infinity });
  using small = createMemfd("small", WINDOW_BYTES);
  using large = createMemfd("large", 2 ** 32 - WINDOW_BYTES);
  const region = (iova: bigint, size: number): MemoryRegion => ({ iova, size, offset: 0, perm: "rw" });
  {
    using staged = domain.stage([region(0n, WINDOW_BYTES)], [small]);
    staged.commit();
  }
  const [before] = domain.regions;
  const both = [region(0n, PAGE), region(1n << 33n, 2 ** 32 - WINDOW_BYTES)];
  const error = assertThrows(() => domain.stage(both, [small, large]), DeviceRefusal);
  assertEquals(error.code, "arena-full");
  assertStrictEquals(domain.regions[0], before);
  assertEquals(arena.freeBytes, free - WINDOW_BYTES);
  using nothing = domain.stage([], []);
  nothing.commit();
});

Deno.test("a region that stays and is lost between stage and commit is known to be lost", () => {
  const domain = new Domain(arena, 0, LIMITS);
  const region: MemoryRegion = { iova: 0n, size: WINDOW_BYTES, offset: 0, perm: "rw" };
  const file = files[0] as Fd;
  {
    using first = domain.stage([region], [file]);
    first.commit();
  }
  {
    using second = domain.stage([{ ...region, perm: "r" }], [file]);
    assertEquals(domain.regions[0]?.perm, "rw");
    assert(domain.poison([domain.regions[0]?.window.offset ?? 0]));
    second.commit();
  }
  assertEquals([domain.poisoned, domain.regions[0]?.perm], [true, "r"]);
  // Shared once more it gets another window: the old one has zero pages in it.
  const lost = domain.regions[0]?.window.offset;
  {
    using third = domain.stage([region], [file]);
    third.commit();
  }
  assertEquals(domain.poisoned, false);
  assert(domain.regions[0]?.window.offset !== lost);
  using nothing = domain.stage([], []);
  nothing.commit();
});

Deno.test("a staged table is not committed over another one", () => {
  const domain = new Domain(arena, 0, LIMITS);
  using first = domain.stage([], []);
  using second = domain.stage([], []);
  first.commit();
  assertThrows(() => second.commit(), Error, "another one came into force");
});

Deno.test("nothing is mapped or unmapped while the engine stands still", async () => {
  const engine = await Engine.start({ cpus: [], spinUs: 0 });
  const tenants = new Tenants(engine, () => {});
  const tenant = new Tenant(engine, 0, LIMITS);
  tenants.add(tenant);
  let pauses = 0;
  const calls: string[] = [];
  let still = false;
  const between = engine.between.bind(engine);
  engine.between = (change) =>
    between(() => {
      still = true;
      pauses++;
      try {
        return change();
      } finally {
        still = false;
      }
    });
  for (const name of ["allocate", "map", "release", "mapOwn", "unmapOwn"] as const) {
    const real = engine.arena[name].bind(engine.arena) as (...args: unknown[]) => unknown;
    // deno-lint-ignore no-explicit-any
    (engine.arena as any)[name] = (...args: unknown[]) => {
      calls.push(still ? `${name} in a pause` : name);
      return real(...args);
    };
  }
  const table = (from: number): MemoryRegion[] =>
    Array.from({ length: 8 }, (_, i) => ({
      ...{ iova: BigInt(from + i) * 0x100_0000n, size: PAGE, perm: "rw" },
      offset: (from + i) * PAGE,
    } as const));
  const fds = (count: number) => Array.from({ length: count }, () => files[0] as Fd);
  tenants.setMemory(tenant, { op: "dmaSet", regions: table(0) }, fds(8));
  tenants.setMemory(tenant, { op: "dmaSet", regions: table(4) }, fds(8));
  const [last] = table(20);
  tenants.mapMemory(tenant, { op: "dmaMap", region: last as MemoryRegion }, files[1] as Fd);
  tenants.unmapMemory(tenant, { op: "dmaUnmap", iova: last?.iova ?? 0n, size: PAGE });
  assertThrows(() => tenants.setMemory(tenant, { op: "dmaSet", regions: table(1) }, fds(7)), DeviceRefusal);
  tenants.remove(tenant, { afterwards: () => engine.arena.unmapOwn(WINDOWS - PAGE, PAGE) });
  assertEquals(pauses, 5);
  const count = (name: string) => calls.filter((call) => call === name).length;
  // Twelve regions of the two tables, four of which stayed, and one more.
  assertEquals(calls.length, count("allocate") + count("map") + count("release") + count("unmapOwn"));
  assertEquals([count("allocate"), count("map"), count("release"), count("unmapOwn")], [13, 13, 13, 1]);
  await engine.close();
});
