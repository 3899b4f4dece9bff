/**
 * How the arena is shared out: a region counts as the whole windows that it takes, and whatever some guests map, each of
 * the others gets its part.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { Engine, Tenant, Tenants } from "../../shared/engine/mod.ts";
import { LIMITS } from "../support/limits.ts";
import { createMemfd, WINDOW_BYTES } from "../../shared/os/mod.ts";

const MIB = 1024 ** 2;
const POOLS = 4;

/** An engine whose arena `POOLS` guests share. */
async function withTenants(test: (tenants: Tenants, tenant: (pool: number) => Tenant) => void): Promise<void> {
  const engine = await Engine.start({ cpus: [], spinUs: 0 });
  try {
    const tenants = new Tenants(engine, () => {});
    tenants.poolsMax = () => POOLS;
    test(tenants, (pool) => {
      const tenant = new Tenant(engine, pool, { ...LIMITS, bytesMax: 2048 * MIB });
      tenants.add(tenant);
      return tenant;
    });
  } finally {
    await engine.close();
  }
}

/** Has a tenant share `bytes` of memory in one piece. */
function share(tenants: Tenants, tenant: Tenant, bytes: number): void {
  using file = createMemfd("guest", bytes);
  tenants.setMemory(tenant, { op: "dmaSet", regions: [{ iova: 0n, size: bytes, offset: 0, perm: "rw" }] }, [file]);
}

Deno.test("a large guest may take what is nobody's part; the others get theirs", () =>
  withTenants((tenants, tenant) => {
    const [large, second, third] = [tenant(0), tenant(1), tenant(2)];
    share(tenants, large, 2000 * MIB);
    const error = assertThrows(() => share(tenants, second, 2000 * MIB), DeviceRefusal);
    assertEquals(error.code, "arena-share");
    assertEquals(second.domain.bytes, 0);
    // A quarter of half the arena is each guest's, whoever came before.
    for (const guest of [second, third, tenant(3)]) share(tenants, guest, 500 * MIB);
  }));

Deno.test("a guest with memory gives some back, or changes it, whatever is free", () =>
  withTenants((tenants, tenant) => {
    const [large, second] = [tenant(0), tenant(1)];
    share(tenants, large, 1400 * MIB);
    share(tenants, second, 1000 * MIB);
    share(tenants, large, 1300 * MIB);
    share(tenants, large, 600 * MIB);
    assertEquals(large.domain.windowBytes, 600 * MIB);
  }));

Deno.test("64 regions of a page count as 64 windows", () =>
  withTenants((tenants, tenant) => {
    const regions = Array.from({ length: 64 }, (_, i) => (
      { iova: BigInt(i) * 0x100000n, size: 4096, offset: 0, perm: "rw" as const }
    ));
    using file = createMemfd("pages", 4096);
    const fds = regions.map(() => file);
    const small = tenant(0);
    tenants.setMemory(small, { op: "dmaSet", regions }, fds);
    assertEquals(small.domain.windowBytes, 64 * WINDOW_BYTES);
    assert(small.domain.bytes < WINDOW_BYTES);
  }));
