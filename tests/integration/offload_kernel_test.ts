/**
 * The reference implementation of offloads (tests/support/reference_*.ts), which judges the engine, is judged itself: the
 * kernel's own segmentation of the same frames gives the same bytes.
 */
import { assert, assertEquals } from "@std/assert";
import { encodeHex } from "@std/encoding/hex";
import { fromFileUrl } from "@std/path";
import fc from "fast-check";
import { judgedTest, run } from "../support/judges.ts";
import type { KernelCase } from "../support/kernel_segments.ts";
import { frameOf, lawfulShape, type Sent, type Shape } from "../support/offload_frames.ts";
import { EVERYTHING, GSO_NONE, NOTHING, validate } from "../support/reference_offload.ts";
import { deliveries } from "../support/reference_segments.ts";

const PROGRAM = fromFileUrl(new URL("../support/kernel_segments.ts", import.meta.url));
const CASES = 400;
/** The kernel's own limit for UDP is 64 in older ones, 128 in newer. */
const SEGMENTS_MAX = 60;
/** A bridge forwards what is not segmented if it is no longer than the interface's MTU. */
const PAYLOAD_BYTES_MAX = 65_300;

/** Runs cases through the kernel, in a network namespace that lives as long. */
async function kernelSegments(cases: readonly Sent[]): Promise<(string[] | number)[]> {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-segments-" });
  try {
    const input: KernelCase[] = cases.map(({ frame, header }) => ({ frame: encodeHex(frame), header }));
    await Deno.writeTextFile(`${dir}/in`, JSON.stringify(input));
    const deno = [Deno.execPath(), "run", "-A", "--quiet", "--no-check", PROGRAM, `${dir}/in`, `${dir}/out`];
    await run("unshare", ["--net", "--", ...deno]);
    return JSON.parse(await Deno.readTextFile(`${dir}/out`));
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** As the kernel wants it: it reads hdr_len, which is a hint to others, and one segment size means something else to it. */
function forKernel(shape: Shape): Sent {
  const GSO_BY_FRAGS = 0xffff;
  const { frame, header } = frameOf({ ...shape, gsoSize: Math.min(shape.gsoSize, GSO_BY_FRAGS - 1) });
  return { frame, header: { ...header, hdrLen: frame.length - shape.payloadBytes } };
}

/** The kernel counts TCP's options as payload: what is just short enough to be one segment, it takes for two, and drops. */
function isDroppedByKernel({ payloadBytes, gsoSize }: Shape): boolean {
  return payloadBytes <= gsoSize && payloadBytes + 64 > gsoSize;
}

judgedTest(["root"], "the kernel cuts and sums frames as the reference does, byte for byte", async () => {
  const limits = { segmentsMax: SEGMENTS_MAX, payloadBytesMax: PAYLOAD_BYTES_MAX };
  const seed = Number(Deno.env.get("SEED") ?? Date.now() % 2 ** 31);
  console.log(`SEED=${seed}`);
  const shapes = fc.sample(lawfulShape(limits).filter((one) => !isDroppedByKernel(one)), { numRuns: CASES, seed });
  const cases = shapes.map(forKernel);
  const results = await kernelSegments(cases);
  const kinds = new Set<number>();
  cases.forEach(({ frame, header }, i) => {
    assertEquals(validate(frame, header, EVERYTHING), undefined);
    const said = results[i];
    const expected = deliveries(frame, header, NOTHING).map((one) => encodeHex(one.frame));
    assertEquals(said, expected, `${JSON.stringify(shapes[i])}: frames, or the error number that the kernel gives`);
    kinds.add(header.gsoType);
  });
  assert(kinds.size >= 5 && kinds.has(GSO_NONE), `the kernel saw ${[...kinds]}`);
});
