/** The command line against a real fabric: policy as a file, several VFs at once, tokens, the doctor. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { cli, fabricCli } from "../support/cli.ts";
import { TestFabric } from "../support/fabric.ts";

Deno.test("the whole policy is a file: exported, compared, applied; applied twice it changes nothing", async () => {
  await using fabric = await TestFabric.start(3);
  const file = `${fabric.runDir}/fabric.yaml`;
  await cli(fabric, "vf", "set", "0-1", "vlan", "7", "qos", "2");
  const { out } = await cli(fabric, "export");
  await Deno.writeTextFile(file, out);
  assertEquals(await cli(fabric, "apply", "-f", file), { code: 0, out: "nothing differs\n", err: "" });

  await Deno.writeTextFile(
    file,
    "nic: { numVfs: 4 }\nvfs:\n  - { id: 3, vlan: 9 }\n  - { id: 0, trust: true }\nvports:\n  - { id: 5, mirror: 'both:vport6' }\n" +
      "  - { id: 6 }\n",
  );
  const wanted = [
    "nic: numVfs: 3 -> 4",
    "vf 3: vlan: undefined -> 9",
    "vf 0: trust: false -> true",
    'vport 5: vport: "none" -> "new"',
    'vport 6: vport: "none" -> "new"',
    // Once both are there.
    'vport 5: mirror: null -> "both:vport6"',
  ].join("\n");
  assertEquals(await cli(fabric, "diff", "-f", file), { code: 1, out: `${wanted}\n`, err: "" });
  assertEquals((await cli(fabric, "apply", "-f", file, "--dry-run")).out, `${wanted}\n`);
  assertEquals((await fabric.get("/api/v1/nic")).numVfs, 3, "a dry run changes nothing");
  assertEquals((await cli(fabric, "apply", "-f", file)).code, 0);
  assertEquals((await cli(fabric, "apply", "-f", file)).out, "nothing differs\n");
  const vfs = await fabric.get("/api/v1/vfs");
  assertEquals([vfs[3].vlan, vfs[0].trust, vfs[0].vlan, vfs[1].vlan], [9, true, 7, 7]);

  assertStringIncludes((await cli(fabric, "qemu", "vport5")).out, `${fabric.runDir}/vport5/vhost.sock`);
  assertStringIncludes((await cli(fabric, "qemu", "0", "--queue-pairs", "2")).out, "mq=on");
  assertStringIncludes((await cli(fabric, "qemu", "0", "--queue-pairs", "two")).err, "a number from 1 to 16");

  await Deno.writeTextFile(file, "vfs: [{ id: 2, mac: '02:ab:00:00:00:02', macFixed: false }]");
  assertEquals((await cli(fabric, "apply", "-f", file)).code, 0);
  assertEquals((await cli(fabric, "apply", "-f", file)).out, "nothing differs\n", "an address does not fix itself");

  for (
    const [text, refusal] of [
      ["vfs: [{ id: 0, colour: red }]", "fabric: vf 0: colour: is not a field that can be set"],
      ["vfs: [{ id: 0, vlan: 4095 }]", "fabric: vf 0: vlan: VLAN ids are 0–4094"],
      ["vfs: {", "is not YAML"],
      ["vfs: [{ id: 0, mac: null }]", "vfs.0.mac: say the address, or leave the field out"],
      ["vports: [{ id: 0 }, { id: 0 }]", "vports: names one of them twice"],
      ["nonsense: 1", "fabric: nonsense: is not a field that can be set"],
    ] as const
  ) {
    await Deno.writeTextFile(file, text);
    const { code, err } = await cli(fabric, "apply", "-f", file);
    assertEquals(code, 1);
    assertStringIncludes(err, refusal);
  }
});

Deno.test("several VFs at once, and what is refused is named as it was typed", async () => {
  await using fabric = await TestFabric.start(4);
  await cli(fabric, "vf", "set", "1,3", "vlan", "5", "proto", "802.1AD");
  assertEquals((await fabric.get("/api/v1/vfs")).map(({ vlan }: { vlan: number }) => vlan), [0, 5, 0, 5]);
  await cli(fabric, "vf", "reset", "all");
  assertEquals((await fabric.get("/api/v1/vfs")).map(({ vlan }: { vlan: number }) => vlan), [0, 0, 0, 0]);
  assertMatch(
    (await cli(fabric, "vf", "set", "0", "vlan", "5", "proto", "x")).err,
    /^fabric: proto: is 802.1Q or 802.1ad/,
  );
  assertMatch((await cli(fabric, "vf", "set", "9", "vlan", "5")).err, /^fabric: there is no vf 9: VFs are 0–3/);
  const own = fabric.vf(0).mac;
  await cli(fabric, "vf", "set", "0", "mac", "02:11:00:00:00:01");
  await cli(fabric, "vf", "set", "0", "mac", "00:00:00:00:00:00");
  const { mac, macFixed } = await fabric.get("/api/v1/vfs/0");
  assertEquals([mac, macFixed], [own, false]);
  for (const words of [["frobnicate"], ["vf", "list", "extra"], ["vf", "set", "0"], ["-o", "xml", "vf", "list"]]) {
    assert((await cli(fabric, ...words)).code !== 0, words.join(" "));
  }
});

Deno.test("tokens for others are made, in force at once, and taken away while the fabric runs", async () => {
  await using fabric = await TestFabric.start(2);
  const token = (await cli(fabric, "token", "add", "bob", "vf", "1")).out.trim();
  const status = async (path: string, method = "GET") => {
    const response = await fetch(fabric.info.api + path, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      ...(method === "GET" ? {} : { body: '{"vlan":3}' }),
    });
    await response.body?.cancel();
    return response.status;
  };
  assertEquals([await status("/api/v1/vfs/1"), await status("/api/v1/vfs/0")], [200, 403]);
  assertEquals([await status("/api/v1/vfs/1", "PATCH"), await status("/api/v1/nic", "PATCH")], [200, 403]);
  const bobs = await fabricCli(["--run-dir", fabric.runDir, "vf", "set", "1", "max_tx_rate", "100"], {
    RINGFABRIC_TOKEN: token,
  });
  assertEquals([bobs.code, bobs.err], [0, ""], "its holder may not look at the NIC, and need not");
  for (
    const [words, refusal] of [
      [["", "read"], '"": a name has 1 to 64 characters'],
      [["x".repeat(65), "read"], "a name has 1 to 64 characters"],
      [["eve", "vf", ""], '"" is no number of a VF'],
      [["eve", "vf", "0x1"], '"0x1" is no number of a VF'],
      [["eve", "service"], "say read, operator, or vf and its number"],
      [["bob", "read"], "there is a token bob: remove it first"],
    ] as const
  ) {
    const { code, err } = await cli(fabric, "token", "add", ...words);
    assertEquals([code, err.includes(refusal)], [words[0] === "bob" ? 1 : 2, true], err);
  }
  assertEquals(await status("/api/v1/vfs/1"), 200, "what was refused has locked nobody out");
  assertEquals((await cli(fabric, "token", "remove", "bob")).code, 0);
  assertEquals(await status("/api/v1/vfs/1"), 401);
});

Deno.test("what is not understood ends with 2, what is refused with 1, and neither changes anything", async () => {
  await using fabric = await TestFabric.start(2);
  for (
    const [code, words, said] of [
      [2, ["vf", "lst"], "unknown command 'lst'; Did you mean list? (fabric vf --help)"],
      [2, ["vf", "set", "0"], "missing required argument 'pairs' (fabric vf set --help)"],
      [2, ["nic", "foo"], "unknown command 'foo' (fabric nic --help)"],
      [2, ["vf", "set", "0", "vlan", "x"], "vlan x: it is a whole number"],
      [1, ["vf", "set", "0", "vlan", "4095"], "vlan: VLAN ids are 0–4094"],
      [1, ["vf", "set", "0-2", "vlan", "7"], "there is no vf 2; there are: 0, 1. Nothing has changed"],
      [1, ["vf", "set", "0", "multicast", "02:00:00:00:00:01"], "multicast.0: is not a multicast MAC address such as"],
      [1, ["nic", "set", "numvfs", "300"], "numvfs: 0–256 VFs"],
      [
        2,
        ["testpmd", "0", "--queue-size", "300"],
        "option '--queue-size <n>' argument '300' is invalid. It is a power of two",
      ],
      [2, ["netdev", "0", "a name"], "the interface's name a name"],
      [2, ["netdev", "0", "rf0", "--address", "10.0.0.5"], "--address 10.0.0.5 has no prefix length: say 10.0.0.5/24"],
      // Where 1 is an answer, trouble is another code.
      [2, ["diff", "-f", "/nowhere"], "cannot read /nowhere"],
      [2, ["doctor", "7"], "there is no vf 7"],
    ] as const
  ) {
    const answer = await cli(fabric, ...words);
    assertEquals([answer.code, answer.out], [code, ""], answer.err);
    assertStringIncludes(answer.err, `fabric: ${said}`);
    assertEquals(answer.err.trimEnd().split("\n").length, 1, answer.err);
  }
  assertEquals((await fabric.get("/api/v1/vfs")).map(({ vlan }: { vlan: number }) => vlan), [0, 0]);
});

Deno.test("an answer that cannot be written is a failure; a reader that has seen enough ends the command", async () => {
  await using fabric = await TestFabric.start(1);
  const fabricIn = async (line: string) => {
    const command = `'${Deno.execPath()}' run -A --quiet services/cli/main.ts --run-dir '${fabric.runDir}'`;
    const script = `fabric() { ${command} "$@"; }; ${line}`;
    const child = new Deno.Command("bash", { args: ["-o", "pipefail", "-c", script], stdout: "null", stderr: "piped" });
    const { code, stderr } = await child.output();
    return { code, err: new TextDecoder().decode(stderr) };
  };
  assertEquals(await fabricIn("fabric export > /dev/full"), {
    code: 1,
    err: "fabric: the disk is full: make room, and say it again\n",
  });
  assertEquals(await fabricIn("fabric stats --watch | head -1"), { code: 141, err: "" });
});

Deno.test("the doctor finds what keeps a guest's frames away", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "1"]);
  assertEquals((await cli(fabric, "doctor", "0")).code, 0);
  await fabric.patch(0, { linkState: "disable" });
  const { code, out } = await cli(fabric, "doctor", "0-1");
  assertEquals(code, 1);
  assertStringIncludes(out, "! vf 0: its link is off: fabric vf set 0 state auto");
  assertStringIncludes(out, "! vf 1: no guest is attached: it attaches at");
});
