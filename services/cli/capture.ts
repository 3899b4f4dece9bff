/** `fabric capture`: frames of a VF, a vport, the PF's pool, the uplink or everybody, as pcapng, dropped ones with the reason. */
import type { Command } from "commander";
import { captureSearch, decimal, wholeNumber } from "../../shared/api/mod.ts";
import { CaptureTally } from "../../shared/pcap/mod.ts";
import { type Context, examples } from "./context.ts";
import { NotUnderstood, UsageError } from "./values.ts";

/** What `capture` is told. */
interface CaptureOptions {
  dropped?: true;
  filter?: string;
  snap?: number;
  seconds?: number;
  write?: string;
}

/** Where the API has the captures of a port. */
function pathOf(port: string): string {
  if (port === "all") return "/api/v1/capture";
  if (port === "uplink" || port === "pf") return `/api/v1/${port}/capture`;
  const [, kind, id] = /^(vf|vport)?(\d{1,4})$/.exec(port) ?? [];
  if (id === undefined) throw new NotUnderstood(`${port}: it is a VF's number, vport0, uplink, pf or all`);
  return `/api/v1/${kind === "vport" ? "vports" : "vfs"}/${Number(id)}/capture`;
}

/** Calls `stop` when it is time, or when the command is asked to end. */
function endWith(seconds: number | undefined, stop: () => void): Disposable {
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, stop);
  const timer = seconds === undefined ? undefined : setTimeout(stop, seconds * 1000);
  return {
    [Symbol.dispose]() {
      clearTimeout(timer);
      for (const signal of signals) Deno.removeSignalListener(signal, stop);
    },
  };
}

/**
 * Writes what comes, as it comes. Whoever reads from a pipe may have seen enough before its end. Answers whether the
 * frames have ended.
 */
async function writeAll(
  from: ReadableStreamDefaultReader<Uint8Array>,
  to: Deno.FsFile | typeof Deno.stdout,
): Promise<boolean> {
  try {
    for (;;) {
      // The service has ended, or its connection has.
      const chunk = await from.read().catch(() => ({ done: true as const, value: undefined }));
      if (chunk.done) return true;
      for (let at = 0; at < chunk.value.length;) at += await to.write(chunk.value.subarray(at));
    }
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) return false;
    throw error;
  } finally {
    await from.cancel().catch(() => {});
  }
}

async function capture(context: Context, port: string, options: CaptureOptions): Promise<void> {
  const { dropped, filter, snap, seconds, write } = options;
  if (write === undefined && Deno.stdout.isTerminal()) {
    throw new UsageError(
      "a capture is no text: name a file with -w, or pipe it, as in: fabric capture 0 | wireshark -k -i -",
    );
  }
  const search = captureSearch({ snap, filter, dropped: dropped && "true" });
  const stream = await context.pf.open(pathOf(port) + search);
  const tally = new CaptureTally();
  const frames = stream.pipeThrough(tally.stream()).getReader();
  using to = write === undefined ? undefined : await Deno.create(write);
  context.progress.say(`capture of ${port}: Ctrl-C ends it`);
  let isStopped = false;
  {
    using _ = endWith(seconds, () => {
      isStopped = true;
      frames.cancel().catch(() => {});
    });
    if (await writeAll(frames, to ?? Deno.stdout) && !isStopped) {
      const kept = write === undefined ? "" : `; what came until then is in ${write}`;
      throw new UsageError(
        `the capture has ended: the NIC, vhost or the PF has ended, or another process has taken over${kept}. ` +
          "Capture again",
      );
    }
  }
  if (write === undefined) return;
  const missing = tally.lost > 0 ? `; ${tally.lost} more were lost: a filter or a smaller --snap may help` : "";
  const result = { file: write, frames: tally.frames, lost: tally.lost };
  context.show(result, () => `wrote ${tally.frames} frames to ${write}${missing}`);
}

/** Adds `capture`. */
export function captureCommand(program: Command, context: Context): void {
  examples(
    program.command("capture <port>").description("frames of a VF, vport0, uplink, pf or all, as pcapng, until Ctrl-C")
      .option("--dropped", "only frames that were dropped; each has the reason as a comment")
      .option("--filter <filter>", "which frames, such as: host 10.0.0.5 and not tcp port 22 (docs/captures.md)")
      .option("--snap <bytes>", "bytes of each frame that are kept", wholeNumber(32, 262_144))
      .option("--seconds <n>", "for how long", decimal(0.001, 86_400))
      .option("-w, --write <file>", "where to; else standard output"),
    "capture 0 | wireshark -k -i -",
    "capture 0 --dropped -w drops.pcapng",
    "capture all --snap 128 --filter 'vlan 100 and arp' --seconds 10 -w arp.pcapng",
    "capture uplink | tshark -r -",
  ).action((port: string, options: CaptureOptions) => capture(context, port, options));
}
