/** Capture files behind a port: what one has comes in, what goes out is recorded in another one. */
import { type Fd, fileStatus, openToAppend, openToRead, OsError, readAt } from "../os/mod.ts";
import { ELOOP, ENOENT } from "../os/libc.ts";
import { CaptureReader, PCAPNG_MAGIC } from "../pcap/mod.ts";
import type { Backend, Drive, Link } from "./backend.ts";

/** Which files, and how they are played. */
export interface CaptureOptions {
  replay?: string | undefined;
  record?: string | undefined;
  isPaced: boolean;
  loops: boolean;
}

/** Open capture files. */
export class CaptureBackend implements Backend {
  readonly name: string;
  readonly interface = undefined;
  readonly #drive: Drive;
  /** Frames in files are whole. */
  readonly features = 0n;
  readonly #files: Fd[] = [];
  readonly #isRecording: boolean;

  /** Opens them. Throws what to do if one cannot be, or is no capture. */
  constructor({ replay, record, isPaced, loops }: CaptureOptions) {
    this.name = `pcap ${replay ?? record}`;
    this.#isRecording = record !== undefined;
    try {
      const from = replay === undefined ? undefined : this.#open(replay, openToReplay);
      const into = record === undefined ? undefined : this.#open(record, openToRecord);
      this.#drive = {
        kind: "capture",
        ...(from === undefined ? {} : { replay: from }),
        ...(into === undefined ? {} : { record: into }),
        ...{ isPaced, loops },
      };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #open(path: string, open: (path: string) => Fd): number {
    const fd = open(path);
    this.#files.push(fd);
    return fd.number;
  }

  accept(): void {}

  open(): Drive {
    return this.#drive;
  }

  /** A file is up as long as there is something to play or to record. */
  link(note?: string): Link {
    return note === undefined ? { isUp: true } : { isUp: this.#isRecording, reason: note };
  }

  kernelDrops(): Record<string, number> {
    return {};
  }

  close(): void {
    for (const fd of this.#files) fd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Opens a file that has a capture's beginning. */
function openToReplay(path: string): Fd {
  return sayingWhy(`replay ${path}`, openToRead, path, (fd) => {
    new CaptureReader((into, offset) => readAt(fd.number, into, offset)).next();
  });
}

/** Opens a file that is new, or empty, or has a capture behind which another one may stand. */
function openToRecord(path: string): Fd {
  return sayingWhy(`record into ${path}`, openToAppend, path, (fd) => {
    const magic = new Uint8Array(4);
    if (fileStatus(fd.number).bytes === 0n) return;
    if (readAt(fd.number, magic, 0) === 4 && new DataView(magic.buffer).getUint32(0, true) === PCAPNG_MAGIC) return;
    throw new Error("there is something else in it; name another file");
  });
}

/** Opens a file that `check` finds good. Throws why `what` cannot be, with nothing left open. */
function sayingWhy(what: string, open: (path: string) => Fd, path: string, check: (fd: Fd) => void): Fd {
  let fd: Fd | undefined;
  try {
    fd = open(path);
    check(fd);
    return fd;
  } catch (cause) {
    fd?.close();
    const why = cause instanceof OsError && cause.errno === ENOENT
      ? "there is no such file or folder"
      : cause instanceof OsError && cause.errno === ELOOP
      ? "it is a symbolic link; name the file that is meant"
      : (cause as Error).message;
    throw new Error(`Cannot ${what}: ${why}`, { cause });
  }
}
