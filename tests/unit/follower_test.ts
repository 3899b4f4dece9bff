/**
 * A process that stands by learns what guests share as the other one has told it. A guest whose files have been truncated
 * since then loses its memory with a take-over, and nobody else loses the standby.
 */
import { assertEquals, assertRejects } from "@std/assert";
import { Pace } from "../../shared/async/mod.ts";
import { Channel } from "../../shared/device/mod.ts";
import { Engine, ENGINE_THREADS } from "../../shared/engine/mod.ts";
import { CTL, CTL_HEIR } from "../../shared/layout/nic.ts";
import { holdForLife, Life } from "../../shared/os/life.ts";
import { createMemfd, Fd, Reactor, UnixListener } from "../../shared/os/mod.ts";
import { DeviceServer } from "../../services/nic/device.ts";
import type { NicExports } from "../../services/nic/exports.ts";
import { Nic } from "../../services/nic/nic.ts";
import { NicFollower } from "../../services/nic/standby/follower.ts";
import { claim } from "../../shared/standby/mod.ts";
import type { Change } from "../../services/nic/standby/messages.ts";
import { programme } from "../support/lease_world.ts";
import { LIMITS } from "../support/limits.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";

const BYTES = 2 * 1024 ** 2;
const IOVA = 0x4000_0000n;
const LOG_BYTES = Number((IOVA + BigInt(BYTES)) >> 15n);

const memory = (pool: number): Change => ({
  ...{ kind: "memory", pool },
  regions: [{ iova: IOVA, size: BYTES, offset: 0, perm: "rw" }],
});

/** Has a process stand by that is told these changes of the leases of two VFs; answers how many regions each has then. */
async function standsBy(told: readonly (readonly [Change, Fd])[]): Promise<number[]> {
  const path = `${await Deno.makeTempDir({ prefix: "ringfabric-follower-" })}/standby.sock`;
  const reactor = new Reactor();
  const listener = UnixListener.listen(path, "seqpacket", reactor);
  const engine = await Engine.start<NicExports>({ cpus: [], spinUs: 0, standsBy: true });
  const nic = new Nic(engine, { ...LIMITS, graceMs: 1000 });
  nic.program(programme(2));
  const channel = claim(path, reactor).active as Channel;
  const socket = await listener.accept();
  if (!socket) throw new Error("nobody came");
  try {
    using other = new Channel(socket);
    for (const pool of [0, 1]) {
      const request = { op: "attach", vf: pool, owner: "vhost", mode: "emulated" } as const;
      const lease: Change = {
        kind: "lease",
        pool,
        request,
        hold: undefined,
        graceMs: 0,
        inherited: [],
        connection: undefined,
      };
      other.send({ changes: [lease] });
    }
    for (const [change, fd] of told) other.send({ changes: [change] }, [fd.number]);
    other.send({ complete: true });
    await new NicFollower(nic, channel, reactor).join();
    return [0, 1].map((pool) => nic.leases.of(pool)?.domain.regions.length ?? -1);
  } finally {
    channel.close();
    listener.close();
    await nic.close();
    await reactor.close();
  }
}

Deno.test("memory that is truncated by now is its guest's loss alone", async () => {
  using honest = createMemfd("honest", BYTES);
  using hostile = unsealableMemfd(BYTES);
  resize(hostile, 4096);
  assertEquals(await standsBy([[memory(0), hostile], [memory(1), honest]]), [0, 1]);
});

Deno.test("a guest whose dirty log is gone has no memory either: nobody would be told what is written there", async () => {
  using first = createMemfd("honest", BYTES);
  using second = createMemfd("honest", BYTES);
  using log = unsealableMemfd(LOG_BYTES);
  resize(log, 4096);
  const logged: Change = { kind: "log", pool: 1, place: { offset: 0, size: LOG_BYTES } };
  assertEquals(await standsBy([[memory(0), first], [memory(1), second], [logged, log]]), [1, 0]);
});

Deno.test({
  name: "what a process that stands by cannot read is not taken for the other one's death",
  // Whoever waits for a lock that this thread holds waits for as long as it lives.
  sanitizeOps: false,
  async fn() {
    const path = `${await Deno.makeTempDir({ prefix: "ringfabric-follower-" })}/standby.sock`;
    const reactor = new Reactor();
    const listener = UnixListener.listen(path, "seqpacket", reactor);
    const engine = await Engine.start<NicExports>({ cpus: [], spinUs: 0, standsBy: true });
    const nic = new Nic(engine, { ...LIMITS, graceMs: 1000 });
    const life = new Life(ENGINE_THREADS);
    for (let i = 0; i < ENGINE_THREADS; i++) holdForLife(life.lock(i));
    using state = createMemfd("state", CTL + CTL_HEIR + 4096);
    const heir = 7;
    const stateFile = Deno.openSync(`/proc/self/fd/${state.number}`, { write: true });
    stateFile.seekSync(CTL + CTL_HEIR, Deno.SeekMode.Start);
    stateFile.writeSync(new Uint8Array(Uint32Array.of(heir).buffer));
    stateFile.close();
    const channel = claim(path, reactor).active as Channel;
    const socket = await listener.accept();
    if (!socket) throw new Error("nobody came");
    try {
      const first: Change = { kind: "nic", instance: "x", heir, sockets: [] };
      new Channel(socket).send({ changes: [first] }, [state.number, life.file.number]);
      new Channel(socket).send({ complete: true });
      const follower = new NicFollower(nic, channel, reactor);
      await follower.join();
      socket.send(Uint8Array.of(0x81), []);
      await assertRejects(() => follower.follow(), Error, "it is not msgpack");
    } finally {
      socket.close();
      channel.close();
      listener.close();
      await nic.close();
      await reactor.close();
    }
  },
});

Deno.test("a guest that asks for ever what was answered before a take-over pays for each answer", async () => {
  const dir = await Deno.makeTempDir({ prefix: "ringfabric-follower-" });
  const reactor = new Reactor();
  const engine = await Engine.start<NicExports>({ cpus: [], spinUs: 0 });
  const nic = new Nic(engine, { ...LIMITS, graceMs: 1000 });
  const server = new DeviceServer(nic, `${dir}/guests.sock`, reactor, true);
  const listener = UnixListener.listen(`${dir}/kept.sock`, "seqpacket", reactor);
  const guest = claim(`${dir}/kept.sock`, reactor).active as Channel;
  const kept = await listener.accept();
  if (!kept) throw new Error("nobody came");
  let paid = 0;
  const { step } = Pace.prototype;
  Pace.prototype.step = function (cost) {
    paid++;
    return step.call(this, cost);
  };
  try {
    const answers = [{ id: 7, ok: true as const, value: { base: 3 } }];
    server.adopt({ id: "1.1", fd: new Fd(kept.fd.detach()), lease: undefined, watches: false, answers });
    assertEquals((await guest.receive())?.message, { event: "tookOver" });
    for (let i = 0; i < 3; i++) {
      guest.send({ id: 7, op: "queueStop", index: 0 });
      assertEquals((await guest.receive())?.message, answers[0]);
    }
    // Its own budget, and the one that it shares with others.
    assertEquals(paid, 3 * 2);
  } finally {
    Pace.prototype.step = step;
    guest.close();
    listener.close();
    await server.close();
    await nic.close();
    await reactor.close();
  }
});
