/** A guest with a token of its own speaks for its port at the vf service, and for nothing else. */
import { assertEquals } from "@std/assert";
import { Access, Restarts } from "../../shared/api/mod.ts";
import { vfApi } from "../../services/vf/api.ts";
import { Guests } from "../../services/vf/guests.ts";
import { Modes } from "../../services/vf/modes.ts";
import { Peers } from "../../services/vf/peers.ts";
import { Registry } from "../../services/vf/registry.ts";

Deno.test("tokens of guests", async () => {
  const dir = await Deno.makeTempDir();
  try {
    const peers = new Peers(
      { pf: "http://127.0.0.1:1", nic: "http://127.0.0.1:1", vhost: "http://127.0.0.1:1" },
      "master",
    );
    const guests = new Guests(peers, new Map([["0", "zero"], ["1", "one"]]));
    const registry = await Registry.open(dir, undefined, { keys: [] });
    const app = vfApi(
      {
        ...{ guests, registry, modes: new Modes({ peers, guests, registry }) },
        unreadiness: () => Promise.resolve(undefined),
        restarts: new Restarts("vf"),
      },
      new Access({ token: "master" }),
    );
    const status = async (token: string, path: string, method = "PUT") =>
      (await app.request(path, {
        method,
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        ...(method === "GET" ? {} : { body: "{}" }),
      })).status;
    // 422: it may, and says too little.
    const cases: [string, string, string, number][] = [
      ["zero", "PUT", "/api/v1/guests/0", 422],
      ["master", "PUT", "/api/v1/guests/0", 422],
      ["zero", "PUT", "/api/v1/guests/1", 401],
      ["zero", "PATCH", "/api/v1/guests/1/link", 401],
      ["zero", "PUT", "/api/v1/guests/00", 401],
      ["", "PUT", "/api/v1/guests/7", 401],
      ["zero", "GET", "/api/v1/plugins", 401],
      ["zero", "PUT", "/api/v1/vfs/0/mode", 401],
      ["master", "GET", "/api/v1/plugins", 200],
      ["master", "PUT", "/api/v1/guests/00", 404],
    ];
    for (const [token, method, path, expected] of cases) {
      assertEquals(await status(token, path, method), expected, `${token} ${method} ${path}`);
    }
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
});
