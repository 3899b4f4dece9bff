/** A front-end's memory: whole tables and single regions, while rings run, and what is checked before the NIC hears of it. */
import { assertEquals } from "@std/assert";
import { DeviceRefusal } from "../../shared/device/refusal.ts";
import { REGIONS_MAX } from "../../shared/layout/nic.ts";
import { MEM_SLOTS_MAX, type VhostRegion } from "../../shared/vhost_user/mod.ts";
import { memoryTable, region, singleRegion, TestSession } from "../support/test_session.ts";

const add = (test: TestSession, n: number) =>
  test.acknowledged("VHOST_USER_ADD_MEM_REG", singleRegion(region(n)), [test.memoryFile()]);
const remove = (test: TestSession, n: number) => test.acknowledged("VHOST_USER_REM_MEM_REG", singleRegion(region(n)));

Deno.test("a table replaces the one before, under traffic: rings that run go on", async () => {
  await using test = await TestSession.start();
  await test.startRings(0, 1);
  await test.setMemory(1, 2);
  assertEquals([test.log, test.running], [["nic: memory 1,2"], [0, 1]]);
  await test.setMemory(1);
  assertEquals([test.log.at(-1), test.state.memoryRegions, test.running], ["nic: memory 1", 1, [0, 1]]);
});

Deno.test("a table that the NIC refuses changes nothing, and its files are closed", async () => {
  await using test = await TestSession.start();
  await test.startRings(0);
  test.fail("dmaSet", new DeviceRefusal("past-end", "region 1 is longer than its file"));
  const files = [test.memoryFile(), test.memoryFile()];
  assertEquals(await test.acknowledged("VHOST_USER_SET_MEM_TABLE", memoryTable([region(1), region(2)]), files), 1n);
  assertEquals([test.state.memoryRegions, test.running], [1, [0]]);
});

Deno.test("an empty table is one", async () => {
  await using test = await TestSession.start();
  await test.setMemory();
  assertEquals([test.log, test.state.memoryRegions], [["nic: memory "], 0]);
});

Deno.test("regions come and go one by one; one that is there already, or has gone already, is a success", async () => {
  await using test = await TestSession.start();
  assertEquals(await add(test, 2), 0n);
  assertEquals(await add(test, 2), 0n, "QEMU before 8.0 announces it once for each queue pair");
  assertEquals([test.log, test.state.memoryRegions], [["nic: add 2"], 2]);
  assertEquals(await remove(test, 2), 0n);
  assertEquals(await remove(test, 2), 0n);
  assertEquals([test.log, test.state.memoryRegions], [["nic: add 2", "nic: remove 2"], 1]);
  assertEquals(await add(test, 2), 0n, "and it may come again");
  assertEquals(test.log.at(-1), "nic: add 2");
});

Deno.test("a region that the NIC refuses is not there", async () => {
  await using test = await TestSession.start();
  test.fail("dmaMap", new DeviceRefusal("memory-limit", "vf 3 has its memory: 2048 MiB"));
  assertEquals([await add(test, 2), test.state.memoryRegions], [1n, 1]);
  test.fail("dmaUnmap", new DeviceRefusal("failed", "not now"));
  assertEquals([await remove(test, 1), test.state.memoryRegions], [1n, 1]);
});

Deno.test("there is room for 62 regions: the NIC has 64 for a VF, and the inflight and the driver's memory are two of them", async () => {
  await using test = await TestSession.start();
  assertEquals(MEM_SLOTS_MAX, REGIONS_MAX - 2);
  for (let n = 2; n <= MEM_SLOTS_MAX; n++) assertEquals(await add(test, n), 0n);
  assertEquals(await add(test, 63), undefined);
  assertEquals(await test.ended, "VHOST_USER_ADD_MEM_REG: more than 62 memory regions");
});

/** Tables that are none: regions, files, and what the table says of their number. */
const BROKEN: [string, Partial<VhostRegion>[], number, number, string][] = [
  ["more files than regions", [{}], 2, 1, "1 memory regions came with 2 descriptors"],
  ["fewer files than regions", [{}, {}], 1, 2, "2 memory regions came with 1 descriptors"],
  ["more regions than it has room for", [{}], 1, 2, "2 memory regions in 40 bytes"],
  ["an empty region", [{ size: 0n }], 1, 1, "memory region at 0x100000000 is empty"],
  [
    "a guest address that wraps",
    [{ guestAddress: (1n << 64n) - 1n }],
    1,
    1,
    "memory region at 0xffffffffffffffff of 0x10000 bytes wraps",
  ],
  [
    "an address of the front-end that wraps",
    [{ userAddress: (1n << 64n) - 1n }],
    1,
    1,
    "memory region at 0x100000000 of 0x10000 bytes wraps",
  ],
  ["an offset beyond any file", [{ mmapOffset: 1n << 60n }], 1, 1, "memory region at 0x100000000 lies beyond any file"],
];

for (const [what, parts, files, count, reason] of BROKEN) {
  Deno.test(`a table with ${what} ends the connection before the NIC hears of it`, async () => {
    await using test = await TestSession.start();
    const table = memoryTable(parts.map((part) => ({ ...region(1), ...part })), count);
    await test.send("VHOST_USER_SET_MEM_TABLE", table, Array.from({ length: files }, () => test.memoryFile()), true);
    assertEquals(await test.ended, `VHOST_USER_SET_MEM_TABLE: ${reason}`);
    assertEquals(test.log.filter((line) => line.startsWith("nic: memory")), []);
  });
}

Deno.test("a region without a file, or that is none, ends the connection", async () => {
  await using first = await TestSession.start();
  await first.send("VHOST_USER_ADD_MEM_REG", singleRegion(region(2)));
  assertEquals(await first.ended, "VHOST_USER_ADD_MEM_REG: a memory region without a descriptor");
  await using second = await TestSession.start();
  await second.send("VHOST_USER_ADD_MEM_REG", singleRegion({ ...region(2), size: 0n }), [second.memoryFile()]);
  assertEquals(await second.ended, "VHOST_USER_ADD_MEM_REG: memory region at 0x200000000 is empty");
});
