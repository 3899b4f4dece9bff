/** What the vf service does when a service that it asks dies over the question. */
import { assertEquals, assertRejects } from "@std/assert";
import { Peers } from "../../services/vf/peers.ts";
import { Unanswered, withDeadline } from "../../shared/api/mod.ts";

/** The peers, of whom vhost is at a port of this machine. */
function peersAt(port: number): Peers {
  const vhost = `http://127.0.0.1:${port}`;
  return new Peers({ pf: vhost, nic: vhost, vhost }, undefined);
}

Deno.test("a process of vhost that dies over a change of the data path is asked again when another one goes on", async () => {
  const dying = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = dying.addr;
  const asking = peersAt(port).setDataPath(3, "emulated", "copy");
  (await dying.accept()).close();
  dying.close();
  const asked: unknown[] = [];
  await using _next = Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, async (request) => {
    asked.push([request.method, new URL(request.url).pathname, await request.json()]);
    return new Response(null, { status: 204 });
  });
  await asking;
  assertEquals(asked, [["PUT", "/api/v1/ports/3/dataPath", { dataPath: "emulated", emulatedPath: "copy" }]]);
});

Deno.test("vhost that stays away is not waited for longer than the change may take", async () => {
  const gone = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  gone.close();
  await assertRejects(
    () => withDeadline({ endsMs: performance.now() + 50 }, () => peersAt(gone.addr.port).setDataPath(3, "emulated")),
    Unanswered,
    "does not answer",
  );
});

Deno.test("a hold ends at the process of the NIC that goes on, if one dies over that: frames do not wait for its deadline", async () => {
  const dying = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = dying.addr;
  const asking = peersAt(port).release(3);
  (await dying.accept()).close();
  dying.close();
  const asked: unknown[] = [];
  await using _next = Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, (request) => {
    asked.push([request.method, new URL(request.url).pathname]);
    return new Response(null, { status: 204 });
  });
  await asking;
  assertEquals(asked, [["DELETE", "/api/v1/vfs/3/hold"]]);
});
