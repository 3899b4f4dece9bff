/** What the NIC tells of an uplink that is replaced: it was there before and is there after, so it never seems to be gone. */
import { assert, assertEquals } from "@std/assert";
import { EventLog } from "../support/event_log.ts";
import { TestFabric } from "../support/fabric.ts";
import { setUplink } from "../support/uplinks.ts";

/** The NIC looks at its uplinks twice a second: several looks fall into an exchange. */
const EXCHANGED_MS = 4000;

Deno.test("an uplink that is replaced is never told to be gone, whenever the NIC looks", async () => {
  await using fabric = await TestFabric.start(1);
  // Both write one file, so that the second one opens when the first one has closed.
  const record = `${fabric.runDir}/record.pcap`;
  await setUplink(fabric, { kind: "pcap", record });
  await using log = await EventLog.start(fabric.url("nic"));
  let exchanges = 0;
  for (const end = performance.now() + EXCHANGED_MS; performance.now() < end; exchanges++) {
    await setUplink(fabric, { kind: "pcap", record, loop: exchanges % 2 === 0 });
  }
  assert(exchanges > 10, `${exchanges} exchanges`);
  assertEquals(log.all.filter(({ type, state }) => type === "uplink" && state !== "up"), []);
});
