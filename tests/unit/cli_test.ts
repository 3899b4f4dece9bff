/** The CLI's words, and what it prints. */
import { assertEquals, assertThrows } from "@std/assert";
import { formatVlans, parsePairs, UsageError } from "../../services/cli/values.ts";
import { statsTable, table } from "../../services/cli/views.ts";

Deno.test("the words of ip link become fields of the API", () => {
  assertEquals(
    parsePairs([
      "mac",
      "02:00:00:00:00:01",
      "vlan",
      "100",
      "qos",
      "3",
      "proto",
      "802.1ad",
      "spoofchk",
      "off",
      "trust",
      "on",
    ]),
    { mac: "02:00:00:00:00:01", vlan: 100, qos: 3, vlanProto: "802.1ad", spoofCheck: false, trust: true },
  );
  assertEquals(parsePairs(["state", "disable", "max_tx_rate", "500", "minTxRate", "10", "trunk", "10,20-22"]), {
    linkState: "disable",
    maxTxRate: 500,
    minTxRate: 10,
    trunk: [10, 20, 21, 22],
  });
  assertEquals(parsePairs(["trunk", "none"]), { trunk: [] });
});

Deno.test("words that mean nothing are refused with what would do", () => {
  for (
    const words of [[], ["vlan"], ["vlan", "ten"], ["colour", "red"], ["trust", "maybe"], ["trunk", "20-10"], [
      "trunk",
      "a",
    ]]
  ) {
    assertThrows(() => parsePairs(words), UsageError);
  }
});

Deno.test("VLAN lists are written as they are read", () => {
  for (const list of ["none", "5", "5,7", "5-9", "1,3-4,4094"]) {
    assertEquals(formatVlans((parsePairs(["trunk", list]) as { trunk: number[] }).trunk), list);
  }
});

Deno.test("tables line up, numbers to the right", () => {
  assertEquals(table(["A", "COUNT"], [["x", 5], ["longer", 1000]]).split("\n"), [
    "A       COUNT",
    "x           5",
    "longer   1000",
  ]);
  const rows = statsTable(
    {
      atMs: 2000,
      counters: [{ rx_frames: 30, rx_bytes: 3000, tx_frames: 10, tx_bytes: 250_000, tx_spoofed: 4, engine_ns: 5e8 }],
    },
    { atMs: 1000, counters: [{ rx_frames: 10, rx_bytes: 1000, tx_frames: 10, tx_bytes: 0, tx_spoofed: 2 }] },
  ).split("\n");
  assertEquals(rows[1]?.trim().split(/\s+/), ["0", "20", "0.0", "0", "2.0", "2", "50.0"]);
});
