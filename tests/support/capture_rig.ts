/** Captures of a rig's engine: their memory is a window behind the guests' memory, and what is written is read block by block. */
import { Capture, type CaptureRequest, captureRequest, Captures } from "../../shared/engine/mod.ts";
import { PortsCaptureQuery } from "../../shared/api/mod.ts";
import type { Arena } from "../../shared/os/mod.ts";
import { EngineRig } from "./engine_rig.ts";

const FIRST_SLOT = 24;

/** A frame of a capture. */
export interface CapturedFrame {
  /** Number of its interface in the file. */
  port: number;
  direction: "in" | "out";
  bytes: Uint8Array;
  /** Its length before it was cut. */
  length: number;
  ns: bigint;
  comments: string[];
  /** Frames that were lost before it. */
  lost: number;
}

/** The captures of a rig. `released`: how much memory was given back. */
export function rigCaptures(rig: EngineRig): { captures: Captures; released(): number; between(): number } {
  let [slot, released, between] = [FIRST_SLOT, 0, 0];
  const arena = {
    buffer: rig.view.buffer,
    allocate: (bytes: number) => ({ offset: EngineRig.guestOffset(slot++), bytes }),
    release: () => released++,
  } as unknown as Arena;
  const captures = new Captures({
    arena,
    view: rig.view,
    between: <T>(change: () => T): T => {
      between++;
      return change();
    },
  });
  return { captures, released: () => released, between: () => between };
}

/** What is asked for, as whoever asks by HTTP writes it, of a NIC with `vfs` VFs. */
export function asked(search: string, vfs: number): CaptureRequest {
  const query = PortsCaptureQuery.parse(Object.fromEntries(new URLSearchParams(search)));
  return captureRequest(query, { kind: "vf", ids: Array.from({ length: vfs }, (_, vf) => vf) });
}

/** The blocks of a pcapng file that was written on this machine: type and body. Throws if they are not whole. */
export function blocksOf(file: Uint8Array): { type: number; body: DataView }[] {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const blocks = [];
  for (let at = 0; at < file.length;) {
    const bytes = view.getUint32(at + 4, true);
    if (bytes < 12 || bytes % 4 !== 0 || view.getUint32(at + bytes - 4, true) !== bytes) {
      throw new Error(`at byte ${at} no block of ${bytes} bytes lies`);
    }
    blocks.push({
      type: view.getUint32(at, true),
      body: new DataView(file.buffer, file.byteOffset + at + 8, bytes - 12),
    });
    at += bytes;
  }
  return blocks;
}

/** The options from byte `at` of a block's body on: code and value. */
export function optionsOf(body: DataView, at: number): [number, DataView][] {
  const options: [number, DataView][] = [];
  while (at < body.byteLength && body.getUint16(at, true) !== 0) {
    const length = body.getUint16(at + 2, true);
    options.push([body.getUint16(at, true), new DataView(body.buffer, body.byteOffset + at + 4, length)]);
    at += 4 + Math.ceil(length / 4) * 4;
  }
  return options;
}

/** The frames of some blocks. */
export function framesOf(file: Uint8Array): CapturedFrame[] {
  return blocksOf(file).filter(({ type }) => type === 6).map(({ body }) => {
    const kept = body.getUint32(12, true);
    const options = optionsOf(body, 20 + Math.ceil(kept / 4) * 4);
    const value = (code: number) => options.filter(([found]) => found === code).map(([, value]) => value);
    return {
      port: body.getUint32(0, true),
      direction: value(2)[0]?.getUint32(0, true) === 1 ? "in" as const : "out" as const,
      bytes: new Uint8Array(body.buffer, body.byteOffset + 20, kept),
      length: body.getUint32(16, true),
      ns: (BigInt(body.getUint32(4, true)) << 32n) | BigInt(body.getUint32(8, true)),
      comments: value(1).map((text) => new TextDecoder().decode(text)),
      lost: Number(value(4)[0]?.getBigUint64(0, true) ?? 0n),
    };
  });
}

/** All frames that a capture has taken by now. */
export function taken(capture: Capture): CapturedFrame[] {
  const frames = [];
  for (let chunk = capture.take(); chunk; chunk = capture.take()) frames.push(...framesOf(chunk));
  return frames;
}

/** Frames in a line each: `0 out`, `1 in dropped: rx_no_buffer`. */
export function inLines(frames: readonly CapturedFrame[]): string[] {
  return frames.map(({ port, direction, comments }) => [port, direction, ...comments].join(" "));
}
