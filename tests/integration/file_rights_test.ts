/** What each service may read and write: its own of the run directory, and nobody else's. */
import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { Places } from "../../services/up/places.ts";

const SCRIPT = fromFileUrl(new URL("../support/file_rights.ts", import.meta.url));
const NAMES = [
  ...["token", "access.json", "fabric.json", "up.lock", "pf.sqlite", "pf.sqlite-journal", "vhost-ports.json"],
  ...["pf.sqlite-wal", "plugins/any.image", "nic.sock", "passthrough.sock", "vf0/vhost.sock"],
];
const PORTS = ["vf0/vhost.sock"];

/** By service: what it may read beside the hashes of tokens, and what of that it may not write. */
const EXPECTED: Record<Parameters<Places["files"]>[0], { write: string[]; readOnly?: string[] }> = {
  nic: { write: ["nic.sock", "passthrough.sock"] },
  pf: { write: ["pf.sqlite", "pf.sqlite-journal", "pf.sqlite-wal", ...PORTS], readOnly: ["fabric.json", "up.lock"] },
  vhost: { write: ["vhost-ports.json", ...PORTS], readOnly: ["fabric.json", "up.lock"] },
  vf: { write: ["plugins/any.image"] },
  guest: { write: [] },
};

for (const within of ["elsewhere", "in the checkout"] as const) {
  Deno.test(`a service has its own files, and nobody else's; the run directory is ${within}`, async () => {
    const dir = within === "elsewhere" ? undefined : fromFileUrl(new URL("../../.build", import.meta.url));
    const runDir = await Deno.makeTempDir({ prefix: "ringfabric-", ...(dir ? { dir } : {}) });
    const places = new Places({
      ...{ runDir, host: "127.0.0.1", port: 8080, trust: [], guests: 0, guestArgs: [], shells: [] },
      ...{ sealedOnly: false, json: false, standby: true, token: true },
    });
    try {
      for (const [name, { write, readOnly = [] }] of Object.entries(EXPECTED)) {
        const { stdout } = await new Deno.Command(Deno.execPath(), {
          args: [
            ...["run", "--quiet", "--no-prompt", ...places.files(name as keyof typeof EXPECTED), SCRIPT],
            ...NAMES.map((file) => `${runDir}/${file}`),
          ],
        }).output();
        const may = JSON.parse(new TextDecoder().decode(stdout)) as { read: string[]; write: string[] };
        const names = (paths: string[]) => paths.map((path) => path.slice(runDir.length + 1)).sort();
        assertEquals(names(may.write), [...write].sort(), `${name} writes`);
        // Whoever reads the checkout reads what else is in it.
        if (within === "elsewhere") {
          assertEquals(names(may.read), [...write, ...readOnly, "access.json"].sort(), `${name} reads`);
        } else assertEquals(names(may.read).includes("token"), false, `${name} reads the operator's token`);
      }
    } finally {
      places.close();
      await Deno.remove(runDir, { recursive: true });
    }
  });
}
