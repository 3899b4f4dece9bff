/** A capture over HTTP that a test reads when it likes: all at once, slowly, or not at all. */
import type { TestFabric } from "./fabric.ts";
import { authorized } from "./token.ts";
import { within } from "./wait.ts";

const DEADLINE_MS = 60_000;
/** Less than this is read when there is not much more. */
const SMALL_BYTES = 16 * 1024;

/** A capture that a test reads when it likes. */
export class CaptureStream implements AsyncDisposable {
  readonly #body: ReadableStreamDefaultReader<Uint8Array>;
  readonly #parts: Uint8Array[] = [];

  private constructor(body: ReadableStream<Uint8Array>) {
    this.#body = body.getReader();
  }

  static async open(fabric: TestFabric, path: string): Promise<CaptureStream> {
    const { status, body } = await authorized(`${fabric.info.api}/api/v1/${path}`);
    if (status !== 200 || !body) throw new Error(`GET ${path}: ${status}`);
    return new CaptureStream(body);
  }

  /** Everything that was read, as far as it is whole blocks. */
  async whole(): Promise<Uint8Array> {
    return wholeBlocks(new Uint8Array(await new Blob(this.#parts as BlobPart[]).arrayBuffer()));
  }

  /** Reads on until `isAll` says so of what was read. */
  async until(what: string, isAll: (file: Uint8Array) => boolean): Promise<Uint8Array> {
    const end = performance.now() + DEADLINE_MS;
    for (let isDue = true;;) {
      const file = isDue ? await this.whole() : undefined;
      if (file && isAll(file)) return file;
      if (performance.now() > end) throw new Error(`waited ${DEADLINE_MS} ms in vain for ${what}`);
      const { value, done } = await within(what, this.#body.read());
      if (done) throw new Error(`the capture ended before there was ${what}`);
      this.#parts.push(value);
      isDue = value.length < SMALL_BYTES || this.#parts.length % 16 === 0;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#body.cancel().catch(() => {});
  }
}

/** A file as far as it is written. */
export function wholeBlocks(file: Uint8Array): Uint8Array {
  const view = new DataView(file.buffer);
  let end = 0;
  while (end + 8 <= file.length && end + view.getUint32(end + 4, true) <= file.length) {
    end += view.getUint32(end + 4, true);
  }
  return file.subarray(0, end);
}
