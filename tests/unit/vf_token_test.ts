/** What a VF's own token may change, and how many captures it may have open. */
import "../support/quiet.ts";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { Access, ApiError, hashToken, type Problem, type Role } from "../../shared/api/mod.ts";
import { pcapngHeader } from "../../shared/pcap/mod.ts";
import { pfApi } from "../../services/pf/api.ts";
import { type Answer, ask, refusalOf } from "../support/app.ts";
import { TestPf } from "../support/test_pf.ts";
import { until } from "../support/wait.ts";

const VFS = 5;

/** A PF with a token for each VF (`vf0` …) and one for an operator (`operator`). */
class Tokens implements AsyncDisposable {
  readonly pf: TestPf;
  readonly #file: string;
  readonly #app;

  constructor(pf: TestPf) {
    this.pf = pf;
    this.#file = Deno.makeTempFileSync();
    const roles: [string, Role][] = [
      ["operator", { role: "operator" }],
      ...Array.from({ length: VFS }, (_, vf): [string, Role] => [`vf${vf}`, { role: "vf", vf }]),
    ];
    const tokens = roles.map(([name, role]) => ({ name, ...role, sha256: hashToken(name) }));
    Deno.writeTextFileSync(this.#file, JSON.stringify({ tokens }));
    this.#app = pfApi(pf.fabric, new Access({ file: this.#file }));
  }

  patch(token: string, vf: number, body: unknown, more: Record<string, string> = {}): Promise<Answer<Problem>> {
    const headers = { authorization: `Bearer ${token}`, ...more };
    return ask(this.#app, "PATCH", `/api/v1/vfs/${vf}`, body, headers);
  }

  async get(token: string, path: string): Promise<Response> {
    return await this.#app.request(path, { headers: { authorization: `Bearer ${token}` } });
  }

  /** Opens a capture, as nobody does who waits for its end. */
  capture(token: string, vf: number, search = ""): Promise<Response> {
    return this.get(token, `/api/v1/vfs/${vf}/capture${search}`);
  }

  async refused(response: Response): Promise<string> {
    return refusalOf({ status: response.status, body: await response.json() });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.pf[Symbol.asyncDispose]();
    Deno.removeSync(this.#file);
  }
}

/** As `Tokens`; captures go on until they are not read any more. `ends`: of each that is open, what ends it. */
async function start(): Promise<{ tokens: Tokens; ends: (() => void)[] }> {
  const tokens = new Tokens(await TestPf.start(VFS));
  const ends: (() => void)[] = [];
  tokens.pf.nic.capture = (search) => {
    if (search.includes("filter=")) return Promise.reject(new ApiError(422, "filter: none", "filter"));
    return Promise.resolve(
      new ReadableStream({
        start(out) {
          out.enqueue(pcapngHeader(["vf0"]));
          ends.push(() => out.close());
        },
      }),
    );
  };
  return { tokens, ends };
}

const REFUSED =
  "403 mirror (operators-only): cannot set mirror with a VF's own token: it reaches into somebody else's port. " +
  "An operator may; leave mirror out, or say what it is: ";

Deno.test("a VF's token sets its VF's policy, but for the mirror, which is an operator's", async () => {
  await using tokens = new Tokens(await TestPf.start(VFS));
  const { pf } = tokens;
  assertEquals((await tokens.patch("vf1", 1, { vlan: 100, trust: true, mirror: null })).status, 200);
  for (const mirror of ["both:0", "in:9", "both:1", "out:uplink"]) {
    assertEquals(refusalOf(await tokens.patch("vf1", 1, { mirror })), `${REFUSED}null`, mirror);
  }
  // What is refused changes nothing, and nothing of what came with it.
  assertEquals(refusalOf(await tokens.patch("vf1", 1, { vlan: 7, mirror: "both:0" })), `${REFUSED}null`);
  assertEquals([(await pf.get("vfs/1")).vlan, pf.nic.programmes.at(-1)?.vfs[1]?.mirror], [100, null]);

  assertEquals((await tokens.patch("operator", 1, { mirror: "both:0" })).status, 200);
  assertEquals(refusalOf(await tokens.patch("vf1", 1, { mirror: null })), `${REFUSED}"both:0"`);
  assertEquals(refusalOf(await tokens.patch("vf1", 1, { mirror: "both:2" })), `${REFUSED}"both:0"`);
});

Deno.test("a whole policy that was read is taken back as it was, mirror and all", async () => {
  await using tokens = new Tokens(await TestPf.start(VFS));
  assertEquals((await tokens.patch("operator", 1, { mirror: "in:3" })).status, 200);
  const read = await tokens.get("vf1", "/api/v1/vfs/1");
  const whole = await read.json();
  const fields = Object.keys(tokens.pf.fabric.settings.vfs[1] ?? {});
  const policy = Object.fromEntries(fields.map((field) => [field, whole[field]]));
  const { status, body } = await tokens.patch("vf1", 1, { ...policy, mtu: 1400 }, {
    "if-match": read.headers.get("etag") ?? "",
  });
  assertEquals([status, body], [200, { ...whole, mtu: 1400 }]);
});

Deno.test("a VF's tokens have two captures of it open, and find out what to do about a third", async () => {
  const { tokens: made, ends } = await start();
  await using tokens = made;
  const open = [await tokens.capture("vf0", 0), await tokens.capture("vf0", 0)];
  assertEquals(open.map(({ status }) => status), [200, 200]);
  assertEquals(
    await tokens.refused(await tokens.capture("vf0", 0)),
    "429 (vf-captures): vf 0's tokens have 2 captures open: end one first",
  );
  const text = await (await tokens.get("operator", "/metrics")).text();
  assertStringIncludes(text, 'ringfabric_vf_captures{vf="0"} 2');
  assertStringIncludes(text, 'ringfabric_capture_refusals_total{reason="vf-captures"} 1');
  assertStringIncludes(text, 'ringfabric_capture_refusals_total{reason="vfs-captures"} 0');

  // One is not read any more, the other one's frames have an end: both places are free again.
  await open[0]?.body?.cancel();
  ends[1]?.();
  await open[1]?.arrayBuffer();
  const again: Response[] = [];
  await until("both places to be free", async () => {
    const next = await tokens.capture("vf0", 0);
    if (next.ok) again.push(next);
    else await next.body?.cancel();
    return again.length === 2;
  });
  assertEquals((await tokens.capture("vf0", 0)).status, 429);
  for (const { body } of again) await body?.cancel();
});

Deno.test("a capture that is refused takes no place", async () => {
  await using tokens = (await start()).tokens;
  for (let i = 0; i < 5; i++) {
    const refused = await tokens.capture("vf0", 0, "?filter=nonsense");
    assertEquals(refused.status, 422);
    await refused.body?.cancel();
  }
  const { status, body } = await tokens.capture("vf0", 0);
  assertEquals([status, await body?.cancel()], [200, undefined]);
});

Deno.test("all VFs' tokens together leave two of the eight captures to operators", async () => {
  await using tokens = (await start()).tokens;
  const open: Response[] = [];
  for (const vf of [0, 1, 2]) for (let i = 0; i < 2; i++) open.push(await tokens.capture(`vf${vf}`, vf));
  assertEquals(open.map(({ status }) => status), Array(6).fill(200));
  assertEquals(
    await tokens.refused(await tokens.capture("vf3", 3)),
    "503 (vfs-captures): VFs' tokens have 6 captures open, which is all that they may: " +
      "try again when one has ended, or ask an operator for the capture",
  );
  for (let i = 0; i < 2; i++) open.push(await tokens.capture("operator", 3));
  assertEquals(open.slice(-2).map(({ status }) => status), [200, 200]);
  for (const { body } of open) await body?.cancel();
});
