/** The command line and the permissions of each process of a fabric: no service has more than it needs. */
import { fromFileUrl, relative, resolve } from "@std/path";
import { accessFile, groupId, limitArguments, socketPath } from "../../shared/api/mod.ts";
import { PLUGIN_DIR, ROOT } from "../../shared/wasm/load.ts";
import type { ChildSpec } from "./child.ts";
import type { Options } from "./options.ts";
import { GUESTS, NIC, PF, type Places, VF, VHOST } from "./places.ts";
import { macSeed } from "./run_dir.ts";

/** Threads that move frames: the NIC's and vhost's. */
const ENGINES = 2;
/**
 * Whoever takes over is not to compile first: all of the Wasm is compiled at the start, 5 ms of it, and nothing is forgotten
 * that has not been run for long.
 */
const STANDBY_V8 = ["--no-wasm-lazy-compilation", "--no-flush-bytecode"];

/** The four services. The NIC is the first. */
export function services(options: Options, places: Places, tokens: ServiceTokens | undefined): ChildSpec[] {
  const { runDir } = places;
  const optional = (flag: string, value: string | number | undefined) => value === undefined ? [] : [flag, `${value}`];
  // With more pollers than CPUs, spinning steals time from threads that have frames to move.
  const crowded = options.guests > 0 && options.guests + ENGINES > navigator.hardwareConcurrency;
  const spinUs = options.spinUs ?? (crowded ? 0 : undefined);
  const net = (own: number, ...others: number[]) =>
    `--allow-net=${[places.listen(own), ...others.map((other) => places.at(other))].join(",")}`;
  const url = (offset: number) => `http://${places.at(offset)}`;
  const guestPorts = Array.from({ length: options.guests }, (_, i) => GUESTS + i);
  const script = (name: string) => ({ name, script: `${places.root}/services/${name}/main.ts` });
  const engined = (name: string) => ({ ...script(name), v8Flags: options.standby ? STANDBY_V8 : [] });
  const access = accessArguments(tokens, runDir);
  const asking = tokens ? { RINGFABRIC_SERVICE_TOKEN: tokens.service } : {};
  return [
    {
      ...engined("nic"),
      permissions: [...places.files("nic"), "--allow-ffi", net(NIC)],
      args: [
        ...access,
        ...["--listen", places.listen(NIC), "--socket", `${runDir}/nic.sock`],
        ...["--guest-socket", `${runDir}/passthrough.sock`],
        ...optional("--standby-socket", options.standby ? `${runDir}/nic-standby.sock` : undefined),
        ...optional("--engine-cpus", options.engineCpus),
        ...optional("--spin-us", spinUs),
        ...limitArguments(options),
      ],
    },
    {
      ...script("pf"),
      permissions: [...places.files("pf"), net(PF, NIC, VHOST, VF)],
      env: asking,
      args: [
        ...access,
        ...["--listen", places.listen(PF), "--nic", url(NIC), "--vhost", url(VHOST), "--vf", url(VF)],
        ...["--db", `${runDir}/pf.sqlite`, "--run-dir", runDir, "--mac-seed", macSeed(options.runDir)],
        ...optional("--vfs", options.vfs),
      ],
    },
    {
      ...engined("vhost"),
      permissions: [...places.files("vhost"), "--allow-ffi", net(VHOST)],
      args: [
        ...access,
        ...["--listen", places.listen(VHOST), "--nic-socket", `${runDir}/nic.sock`, "--run-dir", runDir],
        ...optional("--standby-socket", options.standby ? `${runDir}/vhost-standby.sock` : undefined),
        ...optional("--socket-group", options.socketGroup === undefined ? undefined : groupId(options.socketGroup)),
        ...optional("--front-ends", options.frontEnds === undefined ? undefined : resolve(options.frontEnds)),
        ...optional("--spin-us", spinUs),
        ...limitArguments(options),
      ],
    },
    {
      ...script("vf"),
      permissions: [...places.files("vf"), [net(VF, PF, NIC, VHOST, ...guestPorts), ...options.shells].join(",")],
      env: { ...asking, ...guestTokens(tokens) },
      args: [
        ...access,
        ...["--listen", places.listen(VF), "--pf", url(PF), "--vhost", url(VHOST), "--nic", url(NIC)],
        ...[
          "--plugins",
          `${runDir}/plugins`,
          "--builtin",
          `${places.root}/${relative(fromFileUrl(ROOT), fromFileUrl(PLUGIN_DIR))}`,
        ],
        ...places.trust.flatMap((path) => ["--trust", path]),
      ],
    },
  ];
}

/** What a built-in guest is started with. */
export interface GuestParts {
  options: Options;
  places: Places;
  tokens: ServiceTokens | undefined;
}

/** Tokens for the services of a fabric and its built-in guests, by port. */
export interface ServiceTokens {
  /** What services show each other. */
  service: string;
  /** What a built-in guest and its hypervisor show each other, by the guest's port. */
  guests: Map<string, string>;
}

function accessArguments(tokens: ServiceTokens | undefined, runDir: string): string[] {
  return tokens ? ["--access", accessFile(runDir)] : ["--no-token"];
}

/** The guests' tokens as the vf service takes them: it shows each guest its own, and takes it from that guest alone. */
function guestTokens(tokens: ServiceTokens | undefined): Record<string, string> {
  if (!tokens) return {};
  return { RINGFABRIC_GUEST_TOKENS: [...tokens.guests].map(([port, token]) => `${port}=${token}`).join(",") };
}

/** The port of built-in guest `index`: a VF, or a vport if there are not so many VFs. */
export function guestPort(index: number, vfs: number): string {
  return index < vfs ? String(index) : `vport${index - vfs}`;
}

/** Built-in guest `index`. */
export function guest(index: number, vfs: number, parts: GuestParts): ChildSpec {
  const { options: { guestArgs }, places, places: { runDir }, tokens } = parts;
  const port = guestPort(index, vfs);
  const socket = socketPath(runDir, index < vfs ? `vf${index}` : port);
  const listen = places.listen(GUESTS + index);
  return {
    name: `guest ${index}`,
    script: `${places.root}/services/guest/main.ts`,
    permissions: [...places.files("guest"), "--allow-ffi", `--allow-net=${listen},${places.at(VF)}`],
    env: tokens ? { RINGFABRIC_TOKEN: tokens.guests.get(port) ?? "" } : {},
    args: [
      ...accessArguments(tokens, runDir),
      ...["--listen", listen, "--socket", socket, "--ip", `10.0.${index >> 8}.${(index & 255) + 1}/16`],
      ...["--api-url", `http://${places.at(GUESTS + index)}`, "--port", port],
      ...["--hypervisor", `http://${places.at(VF)}`],
      ...["--nic-socket", `${runDir}/passthrough.sock`],
      ...places.trust.flatMap((path) => ["--trust", path]),
      // The last ones are for all guests that are left.
      ...(guestArgs[Math.min(index, guestArgs.length - 1)] ?? "").split(" ").filter((word) => word !== ""),
    ],
  };
}
