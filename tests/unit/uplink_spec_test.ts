/** Specs of uplinks: their short forms, and what is refused with what would do. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { fieldErrors, formatUplinkSpec, parseUplinkSpec, UplinkSpec } from "../../shared/api/mod.ts";

Deno.test("the short form of each kind is read, and written as it was read", () => {
  const forms: [string, UplinkSpec][] = [
    ["tap:rf0", { kind: "tap", name: "rf0" }],
    ["tap:a-name_of.15chr", { kind: "tap", name: "a-name_of.15chr" }],
    ["packet:eth1.100", { kind: "packet", interface: "eth1.100" }],
    ["xdp:veth0", { kind: "xdp", interface: "veth0" }],
    ["pcap:/tmp/a b:c.pcap", { kind: "pcap", replay: "/tmp/a b:c.pcap" }],
    ["none", { kind: "none" }],
  ];
  for (const [text, spec] of forms) {
    assertEquals(parseUplinkSpec(text), spec);
    assertEquals(formatUplinkSpec(spec), text);
  }
  assertEquals(formatUplinkSpec({ kind: "pcap", record: "/out.pcapng" }), "pcap, into /out.pcapng");
});

Deno.test("what is no short form is refused, with what would do", () => {
  const cases: [string, RegExp][] = [
    ["", /say tap:NAME, packet:IFACE, xdp:IFACE, pcap:FILE or none/],
    ["rf0", /say tap:NAME/],
    ["tun:rf0", /say tap:NAME/],
    ["TAP:rf0", /say tap:NAME/],
    ["none:x", /say tap:NAME/],
    ["tap", /say tap:NAME/],
    ["tap:", /^"tap:" names nothing: say tap:NAME/],
    ["tap:sixteen-letters-", /at most 15 characters/],
    ["tap:a/b", /no slash/],
    ["tap:a b", /no slash, colon, percent sign or space/],
    ["tap:rf%d", /percent sign/],
    ["tap:a:b", /colon/],
    ["tap:..", /cannot be a name/],
    ["tap:-all", /begins with a dash/],
    ["tap:a\n", /no slash/],
    ["packet:", /names nothing/],
    ["pcap:a.pcap", /must be an absolute path/],
    ["pcap:", /names nothing/],
  ];
  for (const [text, pattern] of cases) assertMatch(assertThrows(() => parseUplinkSpec(text), Error).message, pattern);
});

/** Field and reason of what a schema refuses first. */
function refusal(spec: unknown): string[] {
  const { success, error } = UplinkSpec.safeParse(spec);
  if (success) return [];
  const [first] = fieldErrors(error);
  return [first?.field ?? "", first?.detail ?? ""];
}

Deno.test("an address is a host's, with the length of its network's prefix", () => {
  const of = (address: unknown) => refusal({ kind: "tap", name: "rf0", address });
  for (const good of ["10.0.0.254/16", "192.168.1.1/24", "10.0.0.1/32", "10.0.0.0/31", "fd00::fe/64", "fe80::1/10"]) {
    assertEquals(of(good), [], good);
  }
  const cases: [unknown, RegExp][] = [
    ["10.0.0.254", /has no prefix length: say 10\.0\.0\.254\/24/],
    ["10.0.0.0/16", /the network's own address/],
    ["fd00::/64", /the network's own address/],
    ["10.0.0/16", /is not an address such as/],
    ["10.0.0.1/33", /is not an address/],
    ["10.0.0.1/", /is not an address/],
    ["10.0.0.01/8", /is not an address/],
    ["::ffff:10.0.0.1/100", /is not an address/],
    ["10.0.0.1/0", /whole traffic/],
    ["224.0.0.1/4", /cannot be an interface's/],
    ["", /has no prefix length/],
    [7, /is an address such as/],
  ];
  for (const [address, pattern] of cases) {
    const [field, detail = ""] = of(address);
    assertEquals(field, "address", String(address));
    assertMatch(detail, pattern);
  }
});

Deno.test("a spec names the field that is at fault", () => {
  const cases: [unknown, string][] = [
    [{ kind: "vxlan" }, "kind"],
    [{}, "kind"],
    [{ kind: "tap" }, "name"],
    [{ kind: "tap", name: "rf0", mtu: 9000 }, "mtu"],
    [{ kind: "packet", interface: "x".repeat(16) }, "interface"],
    [{ kind: "packet", interface: "eth0", address: "10.0.0.1/8" }, "address"],
    [{ kind: "xdp", interface: "eth0", queue: -1 }, "queue"],
    [{ kind: "xdp", interface: "eth0", queue: 1.5 }, "queue"],
    [{ kind: "pcap" }, "replay"],
    [{ kind: "pcap", record: "a.pcap" }, "record"],
    [{ kind: "pcap", record: "/a\0" }, "record"],
    [{ kind: "pcap", replay: "/a", speed: "slow" }, "speed"],
    [{ kind: "none", name: "rf0" }, "name"],
  ];
  for (const [spec, field] of cases) assertEquals(refusal(spec)[0], field, JSON.stringify(spec));
});
