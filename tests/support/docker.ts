/**
 * A Docker daemon for tests, in namespaces and a folder of its own: what it makes is invisible to the machine and ends
 * with it. No image registry is asked for anything: the Dockerfile's base is made of the deno that runs the tests.
 */
import { run } from "./judges.ts";
import { childrenOf } from "./process.ts";

const SCRIPTS = new URL("docker/", import.meta.url).pathname;
const ROOT = new URL("../../", import.meta.url).pathname;
const PROJECT = "ringfabric";

/** A daemon with the project's cluster. */
export class DockerCluster implements AsyncDisposable {
  readonly #dir: string;
  readonly #env: Record<string, string>;
  #init = "";

  private constructor(dir: string, env: Record<string, string>) {
    this.#dir = dir;
    this.#env = {
      DOCKER_HOST: `unix://${dir}/docker.sock`,
      COMPOSE_PROJECT_NAME: PROJECT,
      DOCKER_BUILDKIT: "0",
      RINGFABRIC_TOKEN: "operators-token",
      GUEST_A_TOKEN: "token-of-guest-a",
      GUEST_B_TOKEN: "token-of-guest-b",
      ...env,
    };
  }

  /** Starts the daemon and gives it the base image; `env`: further variables for docker-compose. */
  static async start(env: Record<string, string> = {}): Promise<DockerCluster> {
    // The path of a socket in a volume must stay below 108 bytes.
    const cluster = new DockerCluster(Deno.makeTempDirSync({ dir: "/tmp", prefix: "rf-" }), env);
    const cache = await Deno.makeTempDir({ prefix: "ringfabric-deno-" });
    try {
      await cluster.#run("sh", [`${SCRIPTS}dockerd-up.sh`, cluster.#dir]);
      const pid = (await Deno.readTextFile(`${cluster.#dir}/unshare.pid`)).trim();
      cluster.#init = String(childrenOf(Number(pid))[0] ?? "");
      await cluster.#run(Deno.execPath(), ["install", "--quiet", "--frozen"], { DENO_DIR: cache });
      const base = /^FROM (\S+)$/m.exec(await Deno.readTextFile(`${ROOT}Dockerfile`))?.[1] ?? "";
      await cluster.#run("sh", [`${SCRIPTS}base-image.sh`, base, cache], { DENO: Deno.execPath() });
      return cluster;
    } catch (error) {
      await cluster[Symbol.asyncDispose]();
      throw error;
    } finally {
      await Deno.remove(cache, { recursive: true });
    }
  }

  async #run(command: string, args: string[], env: Record<string, string> = {}): Promise<string> {
    const { code, stdout, stderr } = await new Deno.Command(command, {
      args,
      cwd: ROOT,
      env: { ...this.#env, ...env },
      stdin: "null",
    }).output();
    const text = new TextDecoder().decode(stdout);
    if (code !== 0) {
      throw new Error(`${command} ${args.join(" ")}: ${text}${new TextDecoder().decode(stderr)}`.slice(-3000));
    }
    return text;
  }

  compose(...args: string[]): Promise<string> {
    return this.#run("/usr/bin/docker-compose", args);
  }

  docker(...args: string[]): Promise<string> {
    return this.#run("/usr/bin/docker", args);
  }

  /** State of a service's container: `restarts health`. */
  async state(service: string): Promise<{ restarts: number; health: string }> {
    const id = (await this.compose("ps", "-q", service)).trim();
    const text = await this.docker("inspect", "-f", "{{.RestartCount}} {{.State.Health.Status}}", id);
    const [restarts, health = ""] = text.trim().split(" ");
    return { restarts: Number(restarts), health };
  }

  /** Kills a service's process from within its container, so that the restart policy holds. */
  async kill(service: string): Promise<void> {
    const code = `for (const { name } of Deno.readDirSync("/proc")) {
      if (!/^\\d+$/.test(name) || +name === Deno.pid) continue;
      try {
        if (Deno.readTextFileSync("/proc/" + name + "/cmdline").startsWith("deno\\0run")) Deno.kill(+name, "SIGKILL");
      } catch {
        // It has ended by itself.
      }
    }`;
    const id = (await this.compose("ps", "-q", service)).trim();
    // The container ends with its process, and this command with the container.
    await this.docker("exec", id, "deno", "eval", "--no-config", code).catch(() => {});
  }

  /** The token that is good at a published port: each guest's own, or the operator's. */
  tokenOf(port: number): string {
    const guests: Record<number, string> = { 8090: "GUEST_A_TOKEN", 8091: "GUEST_B_TOKEN" };
    return this.#env[guests[port] ?? "RINGFABRIC_TOKEN"] ?? "";
  }

  /** Asks a published port, from where the daemon publishes it. */
  async ask(
    port: number,
    method: string,
    path: string,
    body?: unknown,
    token = this.tokenOf(port),
    // deno-lint-ignore no-explicit-any
  ): Promise<{ status: number; body: any }> {
    const script = `const [url, method, body, token] = Deno.args;
      const headers = { "content-type": "application/json", authorization: "Bearer " + token };
      const response = await fetch(url, { method, headers, ...(body ? { body } : {}) });
      console.log(JSON.stringify({ status: response.status, body: JSON.parse((await response.text()) || "null") }));`;
    const file = `${this.#dir}/ask.js`;
    await Deno.writeTextFile(file, script);
    const url = `http://127.0.0.1:${port}${path}`;
    const text = await this.#run("nsenter", [
      ...["-t", this.#init, "--net", "--", Deno.execPath(), "run", "-A", "--no-config", file, url, method],
      ...[body === undefined ? "" : JSON.stringify(body), token],
    ]);
    return JSON.parse(text);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run("sh", [`${SCRIPTS}dockerd-down.sh`, this.#dir]);
  }
}
