/**
 * Memories of ports. Each takes gigabytes of address space until a garbage collector has found it, so one that a port
 * has done with is the next one's.
 */
import { ND_MEMORY_BYTES, ND_SHARED, ND_SHARED_BYTES } from "../layout/netdev.ts";
import { createMemfd, type Fd, sealSize, WasmMemory } from "../os/mod.ts";

const rooms: WasmMemory[] = [];

/** A port's memory, and the file of the part that the NIC sees. */
export class Room implements Disposable {
  readonly memory: WasmMemory;
  readonly file: Fd;

  constructor() {
    this.file = createMemfd("ringfabric-netdev", ND_SHARED_BYTES);
    this.memory = rooms.pop() ?? new WasmMemory(ND_MEMORY_BYTES);
    try {
      sealSize(this.file.number);
      this.memory.map(ND_SHARED, this.file.number, 0, ND_SHARED_BYTES);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Nobody uses it any more, the worker included. */
  [Symbol.dispose](): void {
    if (this.file.closed) return;
    this.file.close();
    this.memory.clear();
    rooms.push(this.memory);
  }
}
