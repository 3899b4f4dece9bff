/** Capture files that lie about time: a wait of the kernel's has 31 bits of milliseconds, and a longer one ends the port. */
import { assertEquals } from "@std/assert";
import * as N from "../../shared/layout/netdev.ts";
import { CaptureCalls } from "../../shared/netdev/capture_calls.ts";
import { openToRead } from "../../shared/os/mod.ts";
import { writeCapture } from "../support/capture_files.ts";

const SECOND_US = 1e6;
const HOUR_MS = 3_600_000;

/** How long a paced replay waits for the second frame of a file with a frame each `gapUs`. */
function waitOf(gapUs: number): number {
  const path = Deno.makeTempFileSync({ suffix: ".pcap" });
  writeCapture(path, [new Uint8Array(60), new Uint8Array(60)], gapUs);
  using file = openToRead(path);
  const memory = new WebAssembly.Memory({
    initial: N.ND_MEMORY_BYTES / 65536,
    maximum: N.ND_MEMORY_BYTES / 65536,
    shared: true,
  });
  const view = new DataView(memory.buffer);
  const calls = new CaptureCalls(
    memory,
    { kind: "capture", replay: file.number, isPaced: true, loops: false },
    () => {},
  );
  view.setUint32(N.ND_IO_ENTRIES + N.SQE_USER_DATA, N.DID_READ, true);
  view.setUint32(view.getUint32(N.ND_CONTROL + N.NC_SQ_TAIL, true), 1, true);
  assertEquals(calls.idle(), 0);
  calls.submit();
  Deno.removeSync(path);
  return calls.idle();
}

Deno.test("a frame is waited for until its time", () => {
  const waitMs = waitOf(100 * SECOND_US);
  assertEquals(waitMs > 90_000 && waitMs <= 100_000, true, `${waitMs} ms`);
});

Deno.test("a frame of another decade than the one before is looked at again each hour", () => {
  for (const years of [1, 54]) {
    assertEquals(waitOf(years * 365 * 86_400 * SECOND_US), HOUR_MS);
  }
});
