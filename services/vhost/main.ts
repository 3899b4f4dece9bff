/** The vhost service: vhost-user back-end of every VF. */
import { Command } from "commander";
import { parseListen, requireToken, runService, serve, urlOf } from "../../shared/api/mod.ts";
import { libc, Reactor } from "../../shared/os/mod.ts";
import { vhostApi } from "./api.ts";
import { Ports } from "./ports.ts";

const options = new Command("vhost")
  .description("vhost-user back-end: guests attach here")
  .option("--listen <host:port>", "control API", parseListen, parseListen("127.0.0.1:8081"))
  .requiredOption("--nic-socket <path>", "the NIC's device socket")
  .requiredOption("--run-dir <dir>", "where the VFs' sockets are made")
  .parse()
  .opts<{ listen: ReturnType<typeof parseListen>; nicSocket: string; runDir: string }>();

await runService("vhost", () => {
  const token = requireToken(options.listen);
  libc();
  const reactor = new Reactor();
  const ports = new Ports({ deviceSocket: options.nicSocket, runDir: options.runDir, reactor });
  const server = serve(vhostApi(ports, token), options.listen);
  const following = ports.follow();
  return Promise.resolve({
    info: { api: urlOf(server.addr) },
    ended: following,
    async close() {
      await ports.close();
      await following;
      await reactor.close();
      await Promise.race([server.shutdown(), new Promise((done) => setTimeout(done, 500))]);
    },
  });
});
