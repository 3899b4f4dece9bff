/** The live stream of the PF: the whole document once, then what has changed, to as many as listen, each as far as it may look. */
import "../support/quiet.ts";
import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import { Hono } from "hono";
import { Access, frameStream, hashToken } from "../../shared/api/mod.ts";
import { pfApi } from "../../services/pf/api.ts";
import { mergePatch } from "../../services/pf/merge_patch.ts";
import { applyPatch } from "../../services/pf/page/live.js";
import { histogram } from "../support/latency.ts";
import { TestPf } from "../support/test_pf.ts";

// deno-lint-ignore no-explicit-any
type Told = { event: string; data: any };

/** What a live stream tells, one after the other; `close` ends it. */
class LiveStream {
  readonly #reader: ReadableStreamDefaultReader<string>;
  #text = "";

  constructor(response: Response) {
    assertEquals([response.status, response.headers.get("content-type")], [200, "text/event-stream"]);
    this.#reader = (response.body as ReadableStream<Uint8Array<ArrayBuffer>>).pipeThrough(new TextDecoderStream())
      .getReader();
  }

  static async open(pf: TestPf, path: string): Promise<LiveStream> {
    return new LiveStream(await pf.app.request(path));
  }

  async next(): Promise<Told> {
    for (;;) {
      const end = this.#text.indexOf("\n\n");
      if (end < 0) {
        const { done, value } = await this.#reader.read();
        if (done) throw new Error("the stream has ended");
        this.#text += value;
        continue;
      }
      const frame = this.#text.slice(0, end);
      this.#text = this.#text.slice(end + 2);
      const [, event] = /^event: (.*)$/m.exec(frame) ?? [];
      const [, data] = /^data: (.*)$/m.exec(frame) ?? [];
      if (event !== undefined && data !== undefined) return { event, data: JSON.parse(data) };
    }
  }

  /** The next that is of this kind and like that. */
  async until(event: string, isIt: (data: Told["data"]) => boolean): Promise<Told["data"]> {
    for (;;) {
      const told = await this.next();
      if (told.event === event && isIt(told.data)) return told.data;
    }
  }

  close(): Promise<void> {
    return this.#reader.cancel();
  }
}

const document = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.integer(),
    fc.string(),
    fc.boolean(),
    fc.array(fc.integer(), { maxLength: 3 }),
    tie("members"),
  ),
  members: fc.dictionary(fc.constantFrom("a", "b", "c", "d"), tie("value"), { maxKeys: 4 }),
})).members;

Deno.test("what the page makes of a document and its patch is the next document; the same makes no patch", () => {
  fc.assert(fc.property(document, document, (before, after) => {
    const patch = mergePatch(before, after);
    if (patch === undefined) return assertEquals(before, after);
    assertEquals(applyPatch(structuredClone(before) as Record<string, unknown>, patch), after);
    assertEquals(mergePatch(after, after), undefined);
  }));
});

Deno.test("a listener has the whole document first, then what has changed, and events if it asks for them", async () => {
  await using pf = await TestPf.start(3);
  pf.nic.pools.set(1, { attached: true, counters: { rx_frames: 5, rx_no_buffer: 0 } });
  await pf.set("vfs/2", { vlan: 7 });
  const stream = await LiveStream.open(pf, "/api/v1/live?events=10");
  const old = await stream.next();
  assertEquals([old.event, old.data.type], ["happened", "nic-up"]);
  const state = await stream.until("state", () => true);
  assertEquals(Object.keys(state.vfs), ["0", "1", "2"]);
  assertEquals([state.vfs[1].counters, state.vfs[1].attached], [{ rx_frames: 5 }, true], "no counter that is 0");
  assertEquals([state.vfs[2].vlan, "queues" in state.vfs[2], state.services.nic.state], [7, false, "up"]);
  pf.nic.pools.set(1, { attached: true, counters: { rx_frames: 9 } });
  await pf.set("vfs/0", { vlan: 100, qos: 3 });
  const happened = await stream.until("happened", ({ type, vf }) => type === "vf-changed" && vf === 0);
  assertEquals(happened.changes, { vlan: 100, qos: 3 });
  assertMatch(happened.at, /^\d{4}-.*Z$/);
  const patch = await stream.until("patch", ({ vfs }) => vfs !== undefined);
  assertEquals(patch.vfs, { 0: { vlan: 100, qos: 3 }, 1: { counters: { rx_frames: 9 } } });
  await stream.close();
});

Deno.test("who comes late is told all that has happened and the whole document, however much that is", async () => {
  await using pf = await TestPf.start(2);
  for (let i = 1; i <= 300; i++) await pf.set(`vfs/${i % 2}`, { vlan: i });
  const stream = await LiveStream.open(pf, "/api/v1/live?events=300");
  for (let i = 1; i <= 300; i++) assertEquals((await stream.next()).data.changes, { vlan: i });
  assertEquals((await stream.next()).event, "state");
  await stream.close();
});

Deno.test("a listener that does not read is cut off before what waits for it takes the PF's memory", async () => {
  const app = new Hono().get("/", (c) =>
    frameStream(c, (send) => {
      for (let i = 0; i < 20; i++) send("x".repeat(1024 ** 2));
      return () => {};
    }));
  const { body } = await app.request("/");
  let characters = 0;
  for await (const part of body as ReadableStream<Uint8Array>) characters += part.length;
  assert(characters < 9 * 1024 ** 2, `${characters} characters were kept of 20 Mi`);
});

Deno.test("latency is told of who has sent, the histogram of the VF that is looked at, and what is recent", async () => {
  await using pf = await TestPf.start(3);
  await pf.addVport();
  const sent = (id: number, counts: Record<number, number>) => pf.nic.pools.set(id, { latency: histogram(counts) });
  sent(0, { 4: 100 });
  sent(1, { 4: 100 });
  pf.software.states = [{ id: 0, attached: true, counters: {}, latency: histogram({ 0: 4 }) }];
  const stream = await LiveStream.open(pf, "/api/v1/live?vf=1");
  const state = await stream.until("state", () => true);
  const said = { samples: 100, p50Us: 12, p99Us: 15.9 };
  assertEquals([state.vfs[0].latency, state.vfs[1].latency], [said, said]);
  assertEquals("latency" in state.vfs[2], false, "it has sent nothing");
  assertEquals(state.vports[0].latency, { ...histogram({ 0: 4 }), samples: 4, p50Us: 0.5, p99Us: 1 });
  const watched = await stream.until("patch", ({ vfs }) => vfs?.[1]?.queues);
  assertEquals(watched.vfs[1].latency, { ...histogram({ 4: 100 }), ...said });
  for (const [path, tag] of [["vfs/1", watched.vfs[1].tag], ["vports/0", state.vports[0].tag]]) {
    assertEquals((await pf.app.request(`/api/v1/${path}`)).headers.get("etag"), tag, "whose policy it is");
  }
  sent(0, { 4: 100, 3: 10 });
  const patch = await stream.until("patch", ({ vfs }) => vfs?.[0]?.latency?.samples === 110);
  assertEquals(patch.vfs[0].latency.recent, { samples: 10, p50Us: 6, p99Us: 8 });
  assertEquals("counts" in patch.vfs[0].latency, false, "nobody looks at VF 0");
  await stream.close();
});

Deno.test("while the NIC is away the last figures stay, with their age, and policy goes on", async () => {
  await using pf = await TestPf.start(1);
  pf.nic.pools.set(0, { attached: true, counters: { rx_frames: 5 } });
  const stream = await LiveStream.open(pf, "/api/v1/live");
  const { readAt } = (await stream.next()).data;
  pf.nic.isAway = true;
  pf.nic.goAway();
  await pf.set("vfs/0", { vlan: 5 });
  const patch = await stream.until("patch", ({ services }) => services !== undefined);
  assertEquals(patch.services.nic.state, "away");
  assertEquals([patch.vfs, patch.readAt], [{ 0: { vlan: 5 } }, undefined]);
  const late = await LiveStream.open(pf, "/api/v1/live");
  const { data } = await late.next();
  assertEquals([data.readAt >= readAt, data.vfs[0].counters], [true, { rx_frames: 5 }], "for who comes later too");
  assert(data.at > data.readAt);
  await Promise.all([stream.close(), late.close()]);
});

Deno.test("queues are told of the VF that is looked at; the NIC is read once for all, and not while nobody looks", async () => {
  await using pf = await TestPf.start(4);
  let reads = 0;
  const state = pf.nic.state.bind(pf.nic);
  pf.nic.state = () => (reads++, state());
  const streams = await Promise.all(
    [1, 2, 2, 3].map((vf) => LiveStream.open(pf, `/api/v1/live?vf=${vf}`)),
  );
  for (const [i, stream] of streams.entries()) {
    const vf = [1, 2, 2, 3][i] as number;
    await stream.until("patch", ({ vfs }) => vfs?.[vf] && "queues" in vfs[vf] && !("mac" in vfs[vf]));
  }
  assert(reads <= 2, `${reads} reads for four listeners`);
  await Promise.all(streams.map((stream) => stream.close()));
  const before = reads;
  await new Promise((resolve) => setTimeout(resolve, 1200));
  assertEquals(reads, before);
  const missing = await pf.ask("GET", "live?vf=9");
  assertEquals([missing.status, (await pf.ask("GET", "live?events=many")).status], [404, 422]);
});

Deno.test("a VF's token sees its VF and what happened to it, and is told what it is good for", async () => {
  await using pf = await TestPf.start(3);
  const file = await Deno.makeTempFile();
  try {
    const entry = { name: "bob", role: "vf", vf: 1, sha256: hashToken("bob") };
    await Deno.writeTextFile(file, JSON.stringify({ tokens: [entry] }));
    const app = pfApi(pf.fabric, new Access({ file }));
    const ask = (path: string) => app.request(path, { headers: { authorization: "Bearer bob" } });
    assertEquals(await (await ask("/api/v1/token")).json(), {
      ...{ name: "bob", role: "vf", vf: 1 },
      fixedFields: ["mirror"],
    });
    for (const path of ["/api/v1/live", "/api/v1/vfs/0/live", "/api/v1/live?vf=1", "/api/v1/vfs/2/attach"]) {
      const refused = await ask(path);
      assertEquals([refused.status, await refused.body?.cancel()], [403, undefined], path);
    }
    assertEquals((await (await ask("/api/v1/vfs/1/attach")).json()).qemu.at(-1).includes("virtio-net-pci"), true);
    await pf.set("vfs/0", { vlan: 3 });
    await pf.set("vfs/1", { vlan: 4 });
    const stream = new LiveStream(await ask("/api/v1/vfs/1/live?events=100"));
    const happened = await stream.next();
    assertEquals([happened.event, happened.data.vf, happened.data.changes], ["happened", 1, { vlan: 4 }]);
    const state = await stream.next();
    assertEquals([state.event, Object.keys(state.data.vfs), "nic" in state.data], ["state", ["1"], false]);
    assertEquals([state.data.vfs[1].vlan, state.data.vfs[1].queues], [4, []]);
    await stream.close();
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("without tokens everybody is an operator", async () => {
  await using pf = await TestPf.start(1);
  assertEquals(await pf.get("token"), { role: "operator" });
});
