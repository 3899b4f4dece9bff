/**
 * `deno task demo`: the first look. Starts a fabric with two built-in guests, lets them ping each other, parts and joins
 * them by VLAN, moves one of them to passthrough and back while frames flow, says what each step did, and leaves the
 * fabric running. It needs no root, no hugepages and no QEMU.
 */
import { Command } from "commander";
import {
  demoRunDir,
  type FlowState,
  MODE_MS_MAX,
  oneLine,
  path,
  Peer,
  type PingResult,
  say,
  type VfMode,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { fabricCommand, tokenHint } from "./hints.ts";
import type { Options } from "./options.ts";
import { type ReadyFabric, Supervisor } from "./supervisor.ts";

const COLUMNS = [36, 46];

function row(...cells: string[]): void {
  say(`  ${cells.map((cell, i) => cell.padEnd(COLUMNS[i] ?? 0)).join("  ").trimEnd()}`);
}

function pinged({ received, sent, avgUs }: PingResult): string {
  return received === 0
    ? `no answer to ${sent} echoes`
    : `${received} of ${sent} echoes answered, ${avgUs} µs on average`;
}

/** Shows what a fabric does; throws if it does not do it. */
async function show({ api, guests, token, tookMs }: ReadyFabric): Promise<void> {
  const [a, b] = guests;
  if (!a || !b) throw new Error("the demo needs two guests");
  const pf = new Peer("the PF", api, token);
  const left = new Peer("guest 1", a.api, token);
  const right = new Peer("guest 2", b.api, token);
  // One before this may have been stopped in the middle.
  await Promise.all([0, 1].map((vf) => pf.ask("PATCH", `/api/v1/vfs/${vf}`, { vlan: 0 })));
  const ping = () =>
    left.ask<PingResult>("POST", "/api/v1/ping", { to: b.ip, count: 5, intervalMs: 20, timeoutMs: 300 });
  const expect = (good: boolean, what: string) => {
    if (!good) throw new Error(`the demo did not go as it should: ${what}`);
  };

  say(`\nA software SR-IOV NIC with two guests, up in ${(tookMs / 1000).toFixed(1)} s\n`);
  row("STEP", "BY", "WHAT HAPPENED");
  row("----", "--", "-------------");
  const first = await ping();
  expect(first.received === 5, "the guests do not reach each other");
  row(`guest 1 pings guest 2`, `POST ${a.api}/api/v1/ping`, pinged(first));

  await pf.ask("PATCH", "/api/v1/vfs/0", { vlan: 100 });
  const parted = await ping();
  expect(parted.received === 0, "a VLAN did not part them");
  row("put guest 1 into VLAN 100", 'PATCH /api/v1/vfs/0 {"vlan":100}', pinged(parted));
  await pf.ask("PATCH", "/api/v1/vfs/1", { vlan: 100 });
  const joined = await ping();
  expect(joined.received === 5, "a VLAN did not join them");
  row("put guest 2 into it too", 'PATCH /api/v1/vfs/1 {"vlan":100}', pinged(joined));

  interface Generator {
    id: number;
    flow: number;
    sent: number;
  }
  const stream = await left.ask<Generator>("POST", "/api/v1/traffic", { to: b.ip, rate: 10_000, size: 200 });
  row("guest 1 sends 10,000 frames a second", `POST ${a.api}/api/v1/traffic`, "each numbered, timed and checked");
  for (const request of [{ mode: "passthrough", plugin: "advanced" }, { mode: "emulated" }]) {
    const start = performance.now();
    const mode = await pf.ask<VfMode>("PUT", "/api/v1/vfs/0/mode", request, MODE_MS_MAX, { prefer: "wait=30" });
    const ms = (performance.now() - start).toFixed(0);
    const what = mode.plugin
      ? `plugin ${mode.plugin} ${mode.version} injected, guest 1 drives its VF itself, in ${ms} ms`
      : `vhost stands between again, in ${ms} ms`;
    row(`guest 1 to ${request.mode}`, `PUT /api/v1/vfs/0/mode {"mode":"${request.mode}"…}`, what);
    const now = await ping();
    expect(now.received === 5, `no ping in ${request.mode} mode`);
    row(`  ping`, "", pinged(now));
  }
  const { sent } = await left.ask<Generator>("DELETE", `/api/v1/traffic/${stream.id}`);
  let flow: FlowState | undefined;
  for (let i = 0; i < 100 && (flow?.received ?? 0) < sent; i++) {
    const { flows } = await right.ask<{ flows: FlowState[] }>("GET", "/api/v1/traffic");
    flow = flows.find((flow) => flow.flow === stream.flow);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const { received = 0, duplicates, reordered } = flow ?? {};
  const books = `${sent} sent, ${sent - received} lost, ${duplicates} twice, ${reordered} out of order`;
  row("guest 2 counts what came", `GET ${b.api}/api/v1/traffic`, books);
  await Promise.all([0, 1].map((vf) => pf.ask("PATCH", `/api/v1/vfs/${vf}`, { vlan: 0 })));
}

/** Says where the fabric is to be seen, while it runs on. */
function invite({ api, guests, token }: ReadyFabric, runDir: string): void {
  say(`\nThe fabric is still running:\n`);
  const key = token ? `#token=${token}` : "";
  say(`  page       ${api}/${key}`);
  say(`  API        ${api}/api/v1/vfs, described at ${api}/docs${key}`);
  say(`  metrics    ${api}/metrics`);
  guests.forEach((guest, i) => say(`  guest ${i + 1}    ${guest.api}  (${guest.ip})`));
  say(`\n${tokenHint(runDir)}`);
  say(`Look at it: ${fabricCommand(runDir)} vf list.  Attach QEMU: … vf qemu 2.  Stop: Ctrl-C.`);
}

const command = new Command("demo")
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, "demo: ")) })
  .description("A first look: a fabric with two guests shows what it does, and stays up")
  .option("--port <p>", "port of the PF's API; the others take ports near it", wholeNumber(1, 65535), 8080)
  .option("--run-dir <dir>", "sockets and settings", path, demoRunDir())
  .option("--exit", "end when the show is over", false)
  .parse();

try {
  const { port, runDir, exit } = command.opts<{ port: number; runDir: string; exit: boolean }>();
  // What the services say about themselves would come between the lines of the table.
  Deno.env.set("RINGFABRIC_LOG", "warn");
  const options: Options = {
    guests: 2,
    guestArgs: [],
    vfs: 4,
    port,
    runDir,
    host: "127.0.0.1",
    shells: [],
    trust: [],
    sealedOnly: false,
    json: true,
    standby: true,
    token: true,
  };
  await new Supervisor(options).run(async (fabric) => {
    await show(fabric);
    if (exit) Deno.kill(Deno.pid, "SIGTERM");
    else invite(fabric, runDir);
  });
  Deno.exit(0);
} catch (error) {
  console.error(`demo: ${oneLine(error).replace(/^up: /, "")}`);
  Deno.exit(1);
}
