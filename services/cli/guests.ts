/** `fabric guest …`: what the built-in guests can do for somebody who looks at a network. */
import type { Command } from "commander";
import {
  bearer,
  decimal,
  type GeneratorState,
  type GuestView,
  Peer,
  type PingResult,
  wholeNumber,
} from "../../shared/api/mod.ts";
import { type Context, examples } from "./context.ts";
import { UsageError } from "./values.ts";
import { table } from "./views.ts";

/** What `guest traffic` is told. */
interface TrafficOptions {
  rate: number;
  seconds: number;
  size: number;
  segment?: true;
}

/** Adds `guest`. */
export function guestCommands(program: Command, context: Context): void {
  const guest = program.command("guest").description("built-in guests, by their port: a VF's number, or vport0");
  const all = () => context.vf.ask<GuestView[]>("GET", "/api/v1/guests");
  const find = async (port: string): Promise<{ peer: Peer; api: string }> => {
    const guests = await all();
    const found = guests.find((one) => one.port === port);
    const known = guests.map((one) => one.port).sort().join(", ") || "none";
    if (!found) throw new UsageError(`there is no built-in guest on ${port}; there are: ${known}`);
    return {
      peer: new Peer(`the guest on ${port}`, found.api, context.fabric.token, { timeoutMs: 120_000 }),
      api: found.api,
    };
  };

  examples(guest.command("list").description("guests with a shell, and seats that wait for one"), "guest list").action(
    async () => {
      const guests = await all();
      context.show(guests, () => guestTable(guests));
    },
  );
  examples(
    guest.command("ping <port> <address>").description("pings an address from inside the guest")
      .option("--count <n>", "echoes", wholeNumber(1, 1000), 4),
    "guest ping 0 10.0.0.2",
  ).action(async (port: string, to: string, { count }: { count: number }) => {
    const { peer } = await find(port);
    context.progress.say(`guest ping: ${count} echoes to ${to}`);
    const result = await peer.ask<PingResult>("POST", "/api/v1/ping", { to, count });
    context.show(result, () =>
      `${result.received} of ${result.sent} echoes answered` +
      (result.avgUs === undefined ? "" : `, ${result.minUs}/${result.avgUs}/${result.maxUs} µs (min/avg/max)`));
    if (result.received === 0) Deno.exit(1);
  });
  examples(
    guest.command("traffic <port> <address>").description("has the guest send numbered, checked frames")
      .option("--rate <n>", "frames a second; 0: as many as go", decimal(0, 100_000_000), 1000)
      .option("--seconds <n>", "for how long", decimal(0.001, 86_400), 5)
      .option("--size <n>", "bytes of a frame", wholeNumber(70, 9014), 128)
      .option("--segment", "hand over frames that are due together as one, which is cut on the way"),
    "guest traffic 0 10.0.0.2 --rate 10000 --seconds 10",
    "guest traffic 0 10.0.0.2 --rate 0 --size 1514 --segment",
  ).action(async (port: string, to: string, options: TrafficOptions) => {
    const { peer } = await find(port);
    const made = await peer.ask<GeneratorState>("POST", "/api/v1/traffic", { to, ...options });
    context.show(made, () => `sends to ${to}; the receiver counts it as flow ${made.flow}`);
  });
  examples(
    guest.command("capture <port>").description("frames of the guest's interface, as pcapng")
      .option("--seconds <n>", "for how long", decimal(0.001, 300), 10)
      .option("-w, --write <file>", "where to; else standard output"),
    "guest capture 0 --seconds 5 -w guest.pcapng",
    "guest capture 0 | wireshark -k -i -",
  ).action(async (port: string, { seconds, write }: { seconds: number; write?: string }) => {
    const { api } = await find(port);
    const { token } = context.fabric;
    const response = await fetch(`${api}/api/v1/capture`, {
      method: "POST",
      headers: { "content-type": "application/json", ...bearer(token) },
      body: JSON.stringify({ seconds }),
    });
    if (!response.ok || !response.body) throw new UsageError(((await response.json()) as { detail: string }).detail);
    if (write === undefined && Deno.stdout.isTerminal()) context.progress.stop();
    else context.progress.say(`guest capture: frames of ${seconds} s`);
    const to = write === undefined ? Deno.stdout : await Deno.create(write);
    await response.body.pipeTo(to.writable);
    if (write !== undefined) context.show({ file: write }, () => `wrote ${write}`);
  });
}

function guestTable(guests: GuestView[]): string {
  return table(
    ["PORT", "API", "SEAT", "MODE", "PLUGIN", "SEEN S AGO"],
    guests.map(({ port, api, seat, mode, seenSecondsAgo }) => [
      ...[port, api, seat, mode.mode, mode.plugin ?? "-", seenSecondsAgo],
    ]),
  );
}
