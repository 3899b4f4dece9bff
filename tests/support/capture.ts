/** tshark's judgement of a capture: checksums that are wrong, lengths that lie, frames that it cannot read. */
import { run } from "./judges.ts";

/** One frame with a fault. */
interface CaptureFault {
  frame: number;
  what: string;
}

/** What tshark is asked about each frame. */
const FIELDS = [
  "frame.number",
  "frame.len",
  "eth.type",
  "ip.len",
  "ipv6.plen",
  "ip.checksum.status",
  "tcp.checksum.status",
  "udp.checksum.status",
  "_ws.malformed",
] as const;
const CHECKSUMS = ["ip", "tcp", "udp"].map((name) => `${name}.check_checksum:TRUE`);
/** Value of a checksum's status. */
const BAD = "0";
const ETHERNET_BYTES = 14;
const TAG_BYTES = 4;
const TAG_TYPES = ["0x8100", "0x88a8"];
const IPV6_HEADER_BYTES = 40;
/** Shorter frames are padded, and longer than what they carry. */
const FRAME_BYTES_MIN = 60;

/** What is wrong with a frame, by tshark's fields of it. */
function faultOf(of: (name: typeof FIELDS[number]) => string): string | undefined {
  for (const name of ["ip.checksum.status", "tcp.checksum.status", "udp.checksum.status"] as const) {
    if (of(name) === BAD) return `${name} is bad`;
  }
  if (of("_ws.malformed") !== "") return "malformed";
  const length = Number(of("frame.len"));
  const linkBytes = ETHERNET_BYTES + (TAG_TYPES.includes(of("eth.type")) ? TAG_BYTES : 0);
  const ipv6 = of("ipv6.plen") === "" ? undefined : Number(of("ipv6.plen")) + IPV6_HEADER_BYTES;
  const ip = of("ip.len") === "" ? ipv6 : Number(of("ip.len"));
  if (ip === undefined || length <= FRAME_BYTES_MIN || length === linkBytes + ip) return undefined;
  return `${length} bytes, of which IP says ${ip}`;
}

/** What tshark says of a capture. */
export interface CaptureReport {
  /** How many frames there are of each EtherType: of the outer tag, where there is one. */
  byType: Record<string, number>;
  longestBytes: number;
  faults: CaptureFault[];
}

/** Judges a capture. What TCP `port` carries is not looked into. */
export async function judgeCapture(path: string, port: number): Promise<CaptureReport> {
  const text = await run("tshark", [
    ...["-r", path, "-n", "-T", "fields", "-E", "occurrence=f", "-E", "separator=,"],
    // Random bytes look like all kinds of protocols, and like broken ones.
    ...["-d", `tcp.port==${port},data`],
    ...CHECKSUMS.flatMap((option) => ["-o", option]),
    ...FIELDS.flatMap((name) => ["-e", name]),
  ]);
  const rows = text.trim().split("\n").map((line) => line.split(","));
  const value = (row: string[], name: typeof FIELDS[number]) => row[FIELDS.indexOf(name)] ?? "";
  const byType = Object.groupBy(rows, (row) => value(row, "eth.type"));
  return {
    byType: Object.fromEntries(Object.entries(byType).map(([type, list = []]) => [type, list.length])),
    longestBytes: Math.max(...rows.map((row) => Number(value(row, "frame.len")))),
    faults: rows.flatMap((row) => {
      const what = faultOf((name) => value(row, name));
      return what === undefined ? [] : [{ frame: Number(value(row, "frame.number")), what }];
    }),
  };
}
