/**
 * The messages about a front-end's memory. Each is checked whole before the session's memory changes. Descriptors that
 * are taken over leave the message; those that stay are closed with it.
 */
import { MEM_SLOTS_MAX, type Message, ProtocolError, readRegion, REGION_BYTES } from "../../shared/vhost_user/mod.ts";
import { MemoryTable } from "./memory.ts";
import type { RingMemory } from "./ring_memory.ts";

/** SET_MEM_TABLE: replaces the whole table. */
export async function setMemTable(memory: RingMemory, { payload, fds }: Message): Promise<void> {
  if (payload.byteLength < 8) throw new ProtocolError(`a memory table of ${payload.byteLength} bytes`);
  const count = payload.getUint32(0, true);
  if (count > MEM_SLOTS_MAX) throw new ProtocolError(`${count} memory regions: at most ${MEM_SLOTS_MAX} in one table`);
  if (payload.byteLength < 8 + count * REGION_BYTES) {
    throw new ProtocolError(`${count} memory regions in ${payload.byteLength} bytes`);
  }
  const regions = Array.from({ length: count }, (_, i) => readRegion(payload, 8 + i * REGION_BYTES));
  const table = MemoryTable.of(regions, fds);
  const owned = [...fds];
  fds.length = 0;
  try {
    await memory.set(table);
  } catch (error) {
    if (memory.table !== table) fds.push(...owned);
    throw error;
  }
}

/**
 * ADD_MEM_REG: front-ends before QEMU 8.0 announce a region once for each queue pair, so what is there already is a
 * success.
 */
export async function addMemReg(memory: RingMemory, { payload, fds: [fd] }: Message): Promise<void> {
  if (!fd) throw new ProtocolError("a memory region without a descriptor");
  const region = readRegion(payload, 8);
  const { table } = memory;
  if (table.has(region)) return;
  if (table.size >= MEM_SLOTS_MAX) throw new ProtocolError(`more than ${MEM_SLOTS_MAX} memory regions`);
  MemoryTable.of([region], [fd]);
  const copy = fd.duplicate();
  try {
    await memory.add(region, copy);
  } catch (error) {
    if (!table.has(region)) copy.close();
    throw error;
  }
}

/** REM_MEM_REG: likewise, what has gone already is a success. */
export async function remMemReg(memory: RingMemory, { payload }: Message): Promise<void> {
  const region = readRegion(payload, 8);
  if (memory.table.has(region)) await memory.remove(region);
}
