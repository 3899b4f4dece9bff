/** The VF plugin service: plugin images, and who drives which VF. */
import { Command } from "commander";
import {
  accessCommand,
  accessOf,
  type AccessOptions,
  GuestPort,
  list,
  ownToken,
  parseListen,
  Restarts,
  runService,
  serve,
  stopServing,
  urlOf,
} from "../../shared/api/mod.ts";
import { LICENCES, readKeys } from "../../shared/plugin/mod.ts";
import { vfApi } from "./api.ts";
import { Guests } from "./guests.ts";
import { Modes } from "./modes.ts";
import { Peers } from "./peers.ts";
import { PeersReadiness } from "./readiness.ts";
import { Registry } from "./registry.ts";

const options = accessCommand(new Command("vf"))
  .description("The VF plugin service: plugins, and changes between emulated mode and passthrough")
  .option("--listen <host:port>", "API", parseListen, parseListen("127.0.0.1:8082"))
  .option("--pf <url>", "the PF's API", "http://127.0.0.1:8080")
  .option("--vhost <url>", "the vhost service's API", "http://127.0.0.1:8081")
  .option("--nic <url>", "the NIC's control API", "http://127.0.0.1:8083")
  .requiredOption("--plugins <dir>", "where uploaded images are kept")
  .option("--builtin <dir>", "images that come along")
  .requiredOption(
    "--trust <file>",
    "public keys of those whose plugins are taken, one in a line; may be repeated",
    list,
  )
  .option("--licences <list>", "licences under which plugins are taken (SPDX)", LICENCES.join(","))
  .parse()
  .opts<
    AccessOptions & {
      pf: string;
      vhost: string;
      nic: string;
      plugins: string;
      builtin?: string;
      trust: string[];
      licences: string;
    }
  >();

/** `0=secret,vport1=secret`: with which the guest on a port shows that it is the one. It need not know any other token. */
function readGuestTokens(text: string): Map<string, string> {
  return new Map(
    text.split(",").filter((entry) => entry !== "").map((entry) => {
      const [, port, token] = /^([^=]+)=(.+)$/.exec(entry) ?? [];
      if (token === undefined || !GuestPort.safeParse(port).success) {
        const said = entry.replace(/=.*/s, "=…");
        throw new Error(`RINGFABRIC_GUEST_TOKENS is a list such as 0=secret,vport1=secret, not with "${said}"`);
      }
      return [String(port), token];
    }),
  );
}

await runService("vf", async () => {
  const access = accessOf(options);
  // A file that is not there would be found with the first image, and no image would be offered.
  readKeys(options.trust);
  const registry = await Registry.open(options.plugins, options.builtin, {
    // Read anew for each image: a key is trusted, or revoked, from the next one on.
    get keys() {
      return readKeys(options.trust);
    },
    licences: options.licences.split(","),
  });
  const readiness = new PeersReadiness(options);
  const peers = new Peers(options, ownToken());
  const guests = new Guests(peers, readGuestTokens(Deno.env.get("RINGFABRIC_GUEST_TOKENS") ?? ""));
  const restarts = new Restarts("vf");
  const server = serve(
    vfApi({
      ...{ registry, guests, modes: new Modes({ peers, guests, registry }), restarts },
      unreadiness: () => readiness.look(),
    }, access),
    options.listen,
  );
  return {
    info: { api: urlOf(server.addr) },
    ended: restarts.ended,
    async close() {
      await stopServing(server);
    },
  };
});
