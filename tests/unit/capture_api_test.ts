/** Captures at the PF: which service is asked for which ports, who may look, and what passes through. */
import { assertEquals } from "@std/assert";
import { CaptureTally, pcapngHeader, putPcapngPacket, statisticsBlock } from "../../shared/pcap/mod.ts";
import { isAllowed } from "../../shared/api/mod.ts";
import { ask, refusalOf } from "../support/app.ts";
import { TestPf } from "../support/test_pf.ts";

Deno.test("each port's capture is asked of the service whose engine has its frames", async () => {
  await using pf = await TestPf.start(2);
  await ask(pf.app, "POST", "/api/v1/vports", {});
  const nic = ["vfs/1/capture?snap=64", "uplink/capture?filter=tcp+port+22", "pf/capture", "capture?dropped=true"];
  for (const path of [...nic, "vports/0/capture"]) {
    const answer = await pf.app.request(`/api/v1/${path}`);
    assertEquals([answer.status, answer.headers.get("content-type")], [200, "application/x-pcapng"], path);
    assertEquals(new Uint8Array(await answer.arrayBuffer()), pcapngHeader(["vf0"]));
  }
  const rest = "snap=262144&dropped=false";
  assertEquals(pf.nic.captures, [
    "?ports=1&snap=64&dropped=false",
    "?ports=uplink&snap=262144&filter=tcp+port+22&dropped=false",
    `?ports=pf&${rest}`,
    "?snap=262144&dropped=true",
  ]);
  assertEquals(pf.software.captures, [`?ports=0&${rest}`]);
  const named = (await pf.app.request("/api/v1/vfs/1/capture")).headers.get("content-disposition");
  assertEquals(named, 'attachment; filename="vf1.pcapng"');
});

Deno.test("what is not there or cannot be is refused before anybody is asked; a HEAD opens nothing", async () => {
  await using pf = await TestPf.start(1);
  const refused = async (path: string) => refusalOf(await ask(pf.app, "GET", `/api/v1/${path}`));
  assertEquals((await refused("vfs/1/capture")).slice(0, 3), "404");
  assertEquals((await refused("vports/0/capture")).slice(0, 3), "404");
  assertEquals((await refused("capture?snap=many")).slice(0, 9), "422 snap:");
  assertEquals((await refused("capture?dropped=perhaps")).slice(0, 12), "422 dropped:");
  assertEquals((await pf.app.request("/api/v1/capture", { method: "HEAD" })).status, 200);
  assertEquals([pf.nic.captures, pf.software.captures], [[], []]);
});

Deno.test("what others send is shown to operators and services; a VF's own to its owner", () => {
  const may = (role: Parameters<typeof isAllowed>[0], path: string) => isAllowed(role, "GET", `/api/v1/${path}`);
  for (const path of ["capture", "uplink/capture", "vfs/1/capture", "captures"]) {
    const roles = [{ role: "operator" }, { role: "service" }, { role: "read" }, { role: "vf", vf: 1 }] as const;
    assertEquals(roles.map((role) => may(role, path)), [true, true, false, path === "vfs/1/capture"], path);
  }
  assertEquals(may({ role: "vf", vf: 0 }, "vfs/1/capture"), false);
});

Deno.test("a stream that comes in any pieces goes on in whole blocks, and is counted", async () => {
  const packets = new DataView(new ArrayBuffer(4096));
  let end = 0;
  for (const length of [60, 61, 1514]) {
    end = putPcapngPacket(packets, end, { bytes: new Uint8Array(length), length, ns: 1n, sent: true });
  }
  const parts = [
    pcapngHeader(["a", "b"]),
    statisticsBlock(0, 1n, 3n),
    new Uint8Array(packets.buffer, 0, end),
    statisticsBlock(0, 2n, 5n),
    statisticsBlock(1, 2n, 7n),
  ];
  const file = new Uint8Array(await new Blob(parts).arrayBuffer());
  for (const step of [1, 7, 64, file.length]) {
    const tally = new CaptureTally();
    const pieces = Array.from(
      { length: Math.ceil(file.length / step) },
      (_, i) => file.slice(i * step, (i + 1) * step),
    );
    const out = ReadableStream.from(pieces).pipeThrough(tally.stream());
    assertEquals(new Uint8Array(await new Response(out).arrayBuffer()), file);
    assertEquals([tally.frames, tally.lost], [3, 12]);
  }
  const tally = new CaptureTally();
  const cut = ReadableStream.from([file.slice(0, -4)]).pipeThrough(tally.stream());
  assertEquals((await new Response(cut).arrayBuffer()).byteLength, file.length - statisticsBlock(1, 2n, 7n).length);
});
