/** What else an operator asks: start-up time, memory, cost when idle, how soon a PATCH is in force. */
import { table } from "../../services/cli/views.ts";
import { TestFabric } from "../support/fabric.ts";
import { FrontEnd } from "../support/front_end.ts";
import { frame } from "../support/mock_guest.ts";
import { QemuGuest } from "../support/qemu.ts";
import { median } from "./stats.ts";

/** CPU time that a process has used, all threads, user and system. */
export function cpuSeconds(pid: number): number {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\) /, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

function rssMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1]) / 1024;
}

/** Milliseconds from starting `up` to its ready line, several times. */
async function startUp(times: number): Promise<number[]> {
  const took: number[] = [];
  for (let i = 0; i < times; i++) {
    const started = performance.now();
    await using fabric = await TestFabric.start(4);
    void fabric;
    took.push(performance.now() - started);
  }
  return took;
}

/** Milliseconds from sending a PATCH to the first frame that feels it, and to its answer, under traffic. */
async function patchLatency(times: number): Promise<{ inForceMs: number[]; answeredMs: number[] }> {
  await using fabric = await TestFabric.start(2);
  const [a, b] = [fabric.vf(0), fabric.vf(1)];
  await using sender = await FrontEnd.connect(a.socket).start();
  await using receiver = await FrontEnd.connect(b.socket).start();
  const bytes = frame({ dst: b.mac, src: a.mac });
  const arrives = async () => {
    const rx = receiver.guest.rx();
    receiver.guest.fill(8 - ((rx.availIdx - rx.usedIdx) & 0xffff));
    receiver.guest.receive();
    sender.guest.send([bytes]);
    sender.kick();
    while (sender.guest.tx().usedIdx !== sender.guest.tx().availIdx) {
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    while (sender.guest.tx().popUsed());
    return receiver.guest.receive().length > 0;
  };
  const inForceMs: number[] = [];
  const answeredMs: number[] = [];
  for (let i = 0; i < times; i++) {
    const started = performance.now();
    const answer = fabric.patch(1, { vlan: i % 2 === 0 ? 100 : 0 }).then(() =>
      answeredMs.push(performance.now() - started)
    );
    const wanted = i % 2 === 1;
    while (await arrives() !== wanted);
    inForceMs.push(performance.now() - started);
    await answer;
  }
  return { inForceMs, answeredMs };
}

/** CPU of all services together with two silent QEMU guests attached, in percent of one core, and their memory. */
async function idle(seconds: number): Promise<{ cpuPercent: number; rssMiB: Record<string, number> }> {
  await using fabric = await TestFabric.start(2);
  const [a, b] = await Promise.all([QemuGuest.boot(fabric.vf(0)), QemuGuest.boot(fabric.vf(1))]);
  await using _a = a;
  await using _b = b;
  for (const guest of [a, b]) await guest.check("ip link set eth0 up");
  await new Promise((resolve) => setTimeout(resolve, 5000));
  const pids = { ...fabric.pids(), up: fabric.process.pid };
  const total = () => Object.values(pids).reduce((sum, pid) => sum + cpuSeconds(pid), 0);
  const before = total();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return {
    cpuPercent: (total() - before) / seconds * 100,
    rssMiB: Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, Math.round(rssMiB(pid))])),
  };
}

/** What an operator sees. */
export interface SystemResult {
  upMs: number;
  patchInForceMs: number;
  patchAnsweredMs: number;
  idleCpuPercent: number;
  rssMiB: Record<string, number>;
}

const START_UPS = 5;
const PATCHES = 40;
const IDLE_SECONDS = 20;

/** Takes all these figures. */
export async function system(): Promise<SystemResult> {
  const upMs = median(await startUp(START_UPS));
  const { inForceMs, answeredMs } = await patchLatency(PATCHES);
  const { cpuPercent, rssMiB } = await idle(IDLE_SECONDS);
  return {
    ...{ upMs, patchInForceMs: median(inForceMs), patchAnsweredMs: median(answeredMs) },
    ...{ idleCpuPercent: cpuPercent, rssMiB },
  };
}

/** The figures in a table. */
export function systemTable(result: SystemResult): string {
  const memory = Object.entries(result.rssMiB).map(([name, mib]) => `${name} ${mib}`).join(", ");
  return table(["WHAT", "FIGURE"], [
    ["up to ready (built)", `${result.upMs.toFixed(0)} ms`],
    ["PATCH sent to in force, under traffic", `${result.patchInForceMs.toFixed(1)} ms`],
    ["PATCH sent to answered", `${result.patchAnsweredMs.toFixed(1)} ms`],
    ["idle CPU of all services, two silent QEMU guests", `${result.idleCpuPercent.toFixed(2)} % of one core`],
    ["memory (RSS)", `${memory} MiB`],
  ]);
}
