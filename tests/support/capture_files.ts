/** Capture files of tests: written as pcap, read whatever they are. */
import { CaptureReader } from "../../shared/pcap/mod.ts";

/** Writes a pcap file of Ethernet frames, one each `gapUs`. */
export function writeCapture(path: string, frames: readonly Uint8Array[], gapUs: number): void {
  using file = Deno.openSync(path, { write: true, create: true, truncate: true });
  const write = (bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
  };
  write(new Uint8Array(new Uint32Array([0xa1b2c3d4, 0x0004_0002, 0, 0, 262144, 1]).buffer));
  frames.forEach((frame, i) => {
    const us = i * gapUs;
    write(new Uint8Array(new Uint32Array([Math.floor(us / 1e6), us % 1e6, frame.length, frame.length]).buffer));
    write(frame);
  });
}

/** The frames of a file. */
export function readFrames(path: string): Uint8Array[] {
  using file = Deno.openSync(path);
  const reader = new CaptureReader((into, offset) => {
    file.seekSync(offset, Deno.SeekMode.Start);
    return file.readSync(into) ?? 0;
  });
  const frames: Uint8Array[] = [];
  for (let frame = reader.next(); frame; frame = reader.next()) frames.push(frame.bytes.slice());
  return frames;
}
