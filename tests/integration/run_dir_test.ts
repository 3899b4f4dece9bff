/** The run directory: whose it is, who may read what is in it, odd names, and files that were damaged. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { pfClient } from "../../shared/api/mod.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { judgedTest } from "../support/judges.ts";
import { TEST_TOKEN } from "../support/token.ts";

/** Everything below a directory, with its mode. */
function* below(path: string): Generator<[string, number]> {
  for (const { name, isDirectory } of Deno.readDirSync(path)) {
    const one = `${path}/${name}`;
    yield [one, (Deno.lstatSync(one).mode ?? 0) & 0o777];
    if (isDirectory) yield* below(one);
  }
}

Deno.test("a run directory that others can write to is refused, with what to do", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    await Deno.chmod(runDir, 0o777);
    const error = await assertRejects(() => TestFabric.start(1, [], runDir), Error);
    assertMatch(error.message, /others can write to it \(mode 777\): chmod go-w it; choose another one with --run-dir/);
  } finally {
    await Deno.remove(runDir, { recursive: true });
  }
});

Deno.test("everything in it is its owner's alone, and each port's socket has a directory of its own", async () => {
  await using fabric = await TestFabric.start(2, ["--guests", "1"]);
  for (const [path, mode] of below(fabric.runDir)) assertEquals(mode & 0o077, 0, `${path}: ${mode.toString(8)}`);
  assertEquals(fabric.vf(1).socket, `${fabric.runDir}/vf1/vhost.sock`);
});

Deno.test("without RINGFABRIC_TOKEN a token is made, kept from run to run, and the command line finds it", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  Deno.env.delete("RINGFABRIC_TOKEN");
  try {
    let kept = "";
    for (let run = 0; run < 2; run++) {
      const fabric = await TestFabric.start(1, [], runDir);
      const token = (await Deno.readTextFile(`${runDir}/token`)).trim();
      assertMatch(token, /^[0-9a-f]{64}$/);
      if (run > 0) assertEquals(token, kept);
      kept = token;
      assertEquals((await pfClient(fabric.info.api, token).api.v1.vfs.$get()).status, 200);
      assertEquals((await fetch(`${fabric.info.api}/api/v1/vfs`)).status, 401);
      assert(!(await Deno.readTextFile(`${runDir}/access.json`)).includes(token), "services see hashes alone");
      for (const pid of Object.values(fabric.pids())) {
        assert(
          !(await Deno.readTextFile(`/proc/${pid}/environ`)).includes(token),
          "no service has the operator's token",
        );
        assert(!(await Deno.readTextFile(`/proc/${pid}/cmdline`)).includes(token));
      }
      const cli = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "--quiet", "services/cli/main.ts", "--run-dir", runDir, "--json", "vf", "list"],
      });
      assertEquals(JSON.parse(new TextDecoder().decode((await cli.output()).stdout)).length, 1);
      await fabric.process.end("SIGINT");
    }
  } finally {
    Deno.env.set("RINGFABRIC_TOKEN", TEST_TOKEN);
    await Deno.remove(runDir, { recursive: true }).catch(() => {});
  }
});

Deno.test("its name may have blanks and commas", async () => {
  const parent = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    await using fabric = await TestFabric.start(1, [], `${parent}/a run, of mine`);
    await using front = await FrontEnd.connect(fabric.vf(0).socket).start();
    void front;
    await fabric.patch(0, { vlan: 9 });
    assert(!fabric.vf(0).socket.includes(","), "QEMU takes a comma for the end of an option");
  } finally {
    await Deno.remove(parent, { recursive: true });
  }
});

Deno.test("a database and a file of ports that are damaged are put aside, and the rest starts", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  try {
    await Deno.writeTextFile(`${runDir}/pf.sqlite`, "this is no database, and never was one, whatever its name says");
    await Deno.writeTextFile(`${runDir}/vhost-ports.json`, '{"0":{"role":"ser');
    await using fabric = await TestFabric.start(2, [], runDir);
    await fabric.patch(0, { vlan: 9 });
    const names = [...Deno.readDirSync(runDir)].map(({ name }) => name);
    assert(names.includes("vhost-ports.json.damaged"), names.join());
    assert(names.some((name) => name.startsWith("pf.sqlite.damaged-")), names.join());
    assertMatch(fabric.process.errors, /pf.sqlite is damaged .* Every policy begins anew/);
  } finally {
    await Deno.remove(runDir, { recursive: true }).catch(() => {});
  }
});

Deno.test("an allotment ends with its fabric: the same command starts it again", async () => {
  const runDir = await Deno.makeTempDir({ prefix: "ringfabric-" });
  const start = () => TestFabric.start(1, ["--guests", "2"], runDir);
  try {
    {
      const fabric = await start();
      await fabric.client.api.v1.nic.$patch({ json: { numVfs: 2 } });
      const change = { param: { id: "0" }, json: { mode: "passthrough" as const } };
      const answer = await fabric.client.api.v1.vports[":id"].mode.$put(change);
      assertEquals(answer.status, 200, await answer.text());
      assertEquals((await fabric.get("/api/v1/vfs/1")).vport, 0);
      // Who asks of an allotted VF is told of its guest, and may not change it under it.
      assertEquals((await fabric.get("/api/v1/vfs/1/mode")).mode, "passthrough");
      const refused = await fabric.client.api.v1.vfs[":id"].mode.$put({
        param: { id: "1" },
        json: { mode: "emulated" },
      });
      assertEquals(((await refused.json()) as { reason?: string }).reason, "vf-allotted");
      await fabric.process.end("SIGINT");
    }
    await using fabric = await start();
    assertEquals((await fabric.get("/api/v1/vports/0")).vf, null);
  } finally {
    await Deno.remove(runDir, { recursive: true }).catch(() => {});
  }
});

/** Connects to a socket as another user, in a group of its own; answers what came of it. */
async function connectAs(gid: number, socket: string): Promise<string> {
  const script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('connected')";
  const { stdout, stderr } = await new Deno.Command("/usr/bin/python3", {
    args: ["-I", "-c", script, socket],
    ...{ uid: 65534, gid, cwd: "/" },
  }).output();
  const text = new TextDecoder();
  return `${text.decode(stdout)}${text.decode(stderr)}`.trim().split("\n").at(-1) ?? "";
}

judgedTest(
  ["python", "root"],
  "with --socket-group its users attach guests, and have nothing else of the fabric",
  async () => {
    const GROUP = 65533;
    await using fabric = await TestFabric.start(1, ["--socket-group", String(GROUP), "--guests", "1"]);
    const { socket } = fabric.vf(0);
    assertEquals(await connectAs(GROUP, socket), "connected");
    assertMatch(await connectAs(GROUP - 1, socket), /PermissionError/);
    assertMatch(await connectAs(GROUP, `${fabric.runDir}/nic.sock`), /PermissionError/);
    for (const [path, mode] of below(fabric.runDir)) {
      const isWay = path === socket || path === `${fabric.runDir}/vf0` || path.startsWith(`${fabric.runDir}/uplink`);
      assertEquals(mode & 0o077, isWay ? (Deno.lstatSync(path).isDirectory ? 0o010 : 0o060) : 0, path);
    }
    const error = await assertRejects(() => TestFabric.start(1, ["--socket-group", "no-such-group"]), Error);
    assertMatch(error.message, /there is no group no-such-group/);
  },
);
