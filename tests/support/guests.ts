/** The project's own guests in tests: pings, checked streams, changes of mode. */
import { assertEquals } from "@std/assert";
import type { FlowState, GeneratorState, PingResult, VfMode } from "../../shared/api/mod.ts";
import type { TestFabric } from "./fabric.ts";
import { until } from "./wait.ts";
import { authorized } from "./token.ts";

/** An answer of an API: its status and body. */
export interface Answer {
  status: number;
  // deno-lint-ignore no-explicit-any
  body: any;
}

/** Asks an API. */
export async function ask(url: string, method = "GET", body?: unknown): Promise<Answer> {
  const image = body instanceof Uint8Array;
  const response = await authorized(url, {
    method,
    ...(body === undefined ? {} : {
      headers: { "content-type": image ? "application/wasm" : "application/json" },
      body: image ? body as Uint8Array<ArrayBuffer> : JSON.stringify(body),
    }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
}

/** As `ask`; throws what the API says if it refuses. */
// deno-lint-ignore no-explicit-any
export async function must(url: string, method = "GET", body?: unknown): Promise<any> {
  const answer = await ask(url, method, body);
  if (answer.status >= 300) throw new Error(`${method} ${url}: ${JSON.stringify(answer.body)}`);
  return answer.body;
}

/** One of a fabric's built-in guests. */
export class TestGuest {
  readonly api: string;
  readonly ip: string;
  readonly #vf: string | undefined;

  /** `vf`: the address of its VF in the PF's API. */
  constructor({ api, ip }: { api: string; ip: string }, vf?: string) {
    this.api = api;
    this.ip = ip;
    this.#vf = vf;
  }

  static of(fabric: TestFabric, index: number): TestGuest {
    const guest = fabric.info.guests[index];
    if (!guest) throw new Error(`the test fabric has no guest ${index}`);
    return new TestGuest(guest, `${fabric.info.api}/api/v1/vfs/${index}`);
  }

  /** What its VF has counted, without what is 0: it says why frames did not arrive. */
  async counted(): Promise<Record<string, number>> {
    if (!this.#vf) return {};
    const { counters } = await must(`${this.#vf}/stats`);
    return Object.fromEntries(Object.entries(counters as Record<string, number>).filter(([, count]) => count !== 0));
  }

  ping(to: string, count = 3, options: Record<string, number> = {}): Promise<PingResult> {
    return must(`${this.api}/api/v1/ping`, "POST", { to, count, intervalMs: 10, timeoutMs: 500, ...options });
  }

  /** Pings until an answer comes. */
  async reaches(to: string): Promise<void> {
    await until(`${this.ip} to reach ${to}`, async () => (await this.ping(to, 1, { timeoutMs: 200 })).received === 1);
  }

  send(to: string, traffic: Record<string, unknown>): Promise<GeneratorState> {
    return must(`${this.api}/api/v1/traffic`, "POST", { to, ...traffic });
  }

  stop(id: number): Promise<GeneratorState> {
    return must(`${this.api}/api/v1/traffic/${id}`, "DELETE");
  }

  async generator(id: number): Promise<GeneratorState> {
    const { generators } = await must(`${this.api}/api/v1/traffic`);
    return generators.find((generator: GeneratorState) => generator.id === id);
  }

  async flow(id: number): Promise<FlowState | undefined> {
    const { flows } = await must(`${this.api}/api/v1/traffic`);
    return flows.find((flow: FlowState) => flow.flow === id);
  }
}

/** Sends `count` frames of a checked stream, and checks that each came once, in order. `receiver` counts them. */
export async function checkedStream(
  sender: TestGuest,
  receiver: TestGuest,
  traffic: Record<string, unknown>,
  to = receiver.ip,
): Promise<FlowState> {
  const { id, flow } = await sender.send(to, traffic);
  const sent = await until("the generator to be done", async () => {
    const generator = await sender.generator(id);
    return generator.state === "done" ? generator.sent : undefined;
  }, 60_000);
  return await allArrived(receiver, flow, sent);
}

/** Waits until `sent` frames of a flow have arrived, each once and in order. */
async function allArrived(receiver: TestGuest, flow: number, sent: number): Promise<FlowState> {
  const got = await until(`${sent} frames to arrive`, async () => {
    const got = await receiver.flow(flow);
    return got && got.received >= sent ? got : undefined;
  }).catch(async (error) => {
    const there = { ...await receiver.flow(flow), counted: await receiver.counted() };
    throw new Error(`${(error as Error).message}; there are: ${JSON.stringify(there)}`);
  });
  assertEquals(
    { received: got.received, lost: got.lost, duplicates: got.duplicates, reordered: got.reordered },
    { received: sent, lost: 0, duplicates: 0, reordered: 0 },
  );
  return got;
}

/** A checked stream that runs until it is ended. */
export class Stream {
  readonly #from: TestGuest;
  readonly #to: TestGuest;
  readonly #generator: GeneratorState;

  private constructor(from: TestGuest, to: TestGuest, generator: GeneratorState) {
    this.#from = from;
    this.#to = to;
    this.#generator = generator;
  }

  /** Starts one to `to`, which counts what comes; `by` counts what comes back, if it is to the echo service. */
  static async start(from: TestGuest, to: TestGuest, traffic: Record<string, unknown>, by = to): Promise<Stream> {
    return new Stream(from, by, await from.send(to.ip, traffic));
  }

  /** Stops sending, and checks that everything has come, once and in order; answers how much that was. */
  async end(): Promise<number> {
    const { sent } = await this.#from.stop(this.#generator.id);
    await allArrived(this.#to, this.#generator.flow, sent);
    return sent;
  }
}

/** Puts a VF into a mode through the PF. */
export function setMode(fabric: TestFabric, vf: number, mode: Record<string, unknown>): Promise<VfMode> {
  return must(`${fabric.info.api}/api/v1/vfs/${vf}/mode`, "PUT", mode);
}

/** The modes in which everything must work, by name. */
export const MODES: Record<string, Record<string, unknown>> = {
  "emulated": { mode: "emulated" },
  "advanced plugin": { mode: "passthrough", plugin: "advanced" },
  "virtio plugin": { mode: "passthrough", plugin: "virtio" },
};
