/**
 * Fuzzer for vhost-user: seeded sequences of messages, nearly right or not at all, with descriptors of all kinds, against
 * a real fabric. The services must live, leak nothing, and two honest guests must keep talking.
 */
import { createEventFd, type Fd } from "../../shared/os/mod.ts";
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { type RequestName, REQUESTS, VHOST_F_LOG_ALL, VHOST_VRING_F_LOG } from "../../shared/vhost_user/mod.ts";
import { Bystanders } from "../support/bystanders.ts";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import {
  BackEndClosed,
  bits,
  FrontEnd,
  type FrontEndGuest,
  memoryTable,
  singleRegion,
  u64,
  USER_BASE,
  vringAddress,
  vringState,
} from "../support/front_end.ts";
import { type VirtqueueName, VIRTQUEUES } from "../support/formats.ts";
import { inflightPayload, keepInflight, WITH_INFLIGHT } from "../support/inflight_front_end.ts";
import { resize, unsealableMemfd } from "../support/memory.ts";
import { PackedDriver } from "../support/packed_guest.ts";
import { must } from "../support/guests.ts";
import { activeOf } from "../support/standby.ts";
import { within } from "../support/wait.ts";
import { Random } from "./random.ts";

const NAMES = Object.keys(REQUESTS) as RequestName[];
const MESSAGES_PER_CONNECTION = 40;
const CONNECTIONS_PER_CHECK = 25;
/** A log of memory up to 32 GiB. */
const SHARED_BYTES = 1024 ** 2;

function region(random: Random, front: FrontEnd<FrontEndGuest>) {
  const good = front.region;
  return {
    guestAddress: random.chance(3) ? random.u64() : good.guestAddress + BigInt(random.below(4)) * good.size,
    size: random.chance(4) ? random.u64() : good.size >> BigInt(random.below(3)),
    userAddress: random.chance(3) ? random.u64() : good.userAddress,
    mmapOffset: random.chance(4) ? random.u64() : BigInt(random.below(3)) * 4096n,
  };
}

/** A payload that fits the request, or does not. */
function payload(random: Random, front: FrontEnd<FrontEndGuest>, name: RequestName): Uint8Array {
  if (random.chance(6)) return random.bytes(random.below(64));
  const index = random.chance(6) ? random.u32() : random.below(4);
  const queue = front.guest.queues[index % front.guest.queues.length];
  switch (name) {
    case "VHOST_USER_SET_FEATURES":
      return u64(random.chance(3) ? random.u64() : front.features ^ (random.chance(2) ? bits(VHOST_F_LOG_ALL) : 0n));
    case "VHOST_USER_SET_PROTOCOL_FEATURES":
      return u64(random.chance(3) ? random.u64() : WITH_INFLIGHT);
    case "VHOST_USER_SET_MEM_TABLE":
      return memoryTable(
        Array.from({ length: random.below(3) }, () => region(random, front)),
        random.chance(4) ? random.u32() : undefined,
      );
    case "VHOST_USER_ADD_MEM_REG":
    case "VHOST_USER_REM_MEM_REG":
      return singleRegion(random.chance(2) ? front.region : region(random, front));
    case "VHOST_USER_SET_VRING_ADDR": {
      const at = (good: number) => random.chance(4) ? random.u64() : USER_BASE + BigInt(good);
      const bytes = vringAddress(index, at(queue?.desc ?? 0), at(queue?.used ?? 0), at(queue?.avail ?? 0));
      if (random.chance(2)) return bytes;
      const view = new DataView(bytes.buffer);
      view.setUint32(4, VHOST_VRING_F_LOG, true);
      view.setBigUint64(32, random.chance(2) ? front.region.guestAddress : random.u64(), true);
      return bytes;
    }
    case "VHOST_USER_SET_VRING_NUM":
      return vringState(index, random.chance(3) ? random.u32() : random.pick([64, 64, 100]));
    case "VHOST_USER_SET_VRING_BASE":
    case "VHOST_USER_GET_VRING_BASE":
      return vringState(
        index,
        random.chance(3) ? random.u32() : queue instanceof PackedDriver ? VIRTQ_PACKED_BASE_INITIAL : 0,
      );
    case "VHOST_USER_SET_VRING_ENABLE":
      return vringState(index, random.below(2));
    case "VHOST_USER_SET_VRING_KICK":
    case "VHOST_USER_SET_VRING_CALL":
    case "VHOST_USER_SET_VRING_ERR":
      return u64(random.chance(4) ? random.u64() : BigInt(index));
    case "VHOST_USER_GET_INFLIGHT_FD":
    case "VHOST_USER_SET_INFLIGHT_FD":
      return inflightPayload({
        mmapSize: random.chance(3) ? random.u64() : BigInt(SHARED_BYTES),
        mmapOffset: random.chance(3) ? random.u64() : BigInt(random.below(3)) * 4096n,
        queues: random.pick([2, 2, 3, 33, random.u16()]),
        queueSize: random.pick([64, 64, 100, 1024, 32_768, random.u16()]),
      });
    case "VHOST_USER_SET_LOG_BASE": {
      const log = new DataView(new ArrayBuffer(16));
      log.setBigUint64(0, random.chance(3) ? random.u64() : BigInt(SHARED_BYTES >> random.below(4)), true);
      log.setBigUint64(8, random.chance(4) ? random.u64() : BigInt(random.below(2)) * 4096n, true);
      return new Uint8Array(log.buffer);
    }
    case "VHOST_USER_SET_STATUS":
      return u64(BigInt(random.below(256)));
    default:
      return new Uint8Array();
  }
}

/** What a front-end shares beside its memory. */
interface Shared {
  eventFd: Fd;
  /** A log, or inflight memory; it may be truncated at any moment. */
  file: Fd;
}

function descriptors(random: Random, front: FrontEnd<FrontEndGuest>, { eventFd, file }: Shared): number[] {
  const kinds = [front.memory.fd.number, eventFd.number, front.socket.fd.number, file.number];
  if (random.chance(10)) return Array.from({ length: random.below(20) }, () => random.pick(kinds));
  return random.chance(2) ? [] : [random.pick(kinds.slice(0, 2))];
}

/** Sends one message; false if it was no whole message, so that the back-end may now wait for more of it. */
function sendOne(random: Random, front: FrontEnd<FrontEndGuest>, shared: Shared): boolean {
  const { eventFd, file } = shared;
  if (random.chance(40)) resize(file, random.pick([0, 4096, SHARED_BYTES]));
  const name = random.pick(NAMES);
  const needs: Partial<Record<RequestName, number[]>> = {
    VHOST_USER_SET_MEM_TABLE: [front.memory.fd.number],
    VHOST_USER_ADD_MEM_REG: [front.memory.fd.number],
    VHOST_USER_SET_VRING_KICK: [eventFd.number],
    VHOST_USER_SET_VRING_CALL: [eventFd.number],
    VHOST_USER_SET_VRING_ERR: [eventFd.number],
    VHOST_USER_SET_INFLIGHT_FD: [file.number],
    VHOST_USER_SET_LOG_BASE: [file.number],
  };
  const fds = random.chance(4) ? descriptors(random, front, shared) : needs[name] ?? [];
  if (random.chance(60)) {
    front.raw(random.bytes(1 + random.below(40)), fds);
    return false;
  }
  front.send(random.chance(30) ? random.below(60) : name, payload(random, front, name), fds, random.chance(3));
  return true;
}

async function oneConnection(random: Random, socket: string): Promise<void> {
  const format = random.pick(Object.keys(VIRTQUEUES) as VirtqueueName[]);
  await using front = FrontEnd.connectAs(format, socket, { bytes: 1024 ** 2 });
  using eventFd = createEventFd();
  using file = unsealableMemfd(SHARED_BYTES);
  try {
    // Acknowledgements come once they are negotiated.
    if (!random.chance(4)) {
      await front.negotiate();
      if (random.chance(2)) await front.shareMemory();
      if (random.chance(4)) await front.startVring(random.below(2));
    }
    let whole = true;
    for (let i = random.below(MESSAGES_PER_CONNECTION); i > 0; i--) {
      whole = sendOne(random, front, { eventFd, file }) && whole;
    }
    if (random.chance(2)) {
      const tx = front.guest.tx();
      if (tx instanceof PackedDriver) tx.writeFlags(random.below(tx.size), random.u16());
      else tx.publish(random.u16());
      front.kick();
    }
    // Whatever came of it, the back-end answers or closes: it does not hang.
    if (!whole) return;
    front.send("VHOST_USER_GET_FEATURES");
    await within("the back-end to answer or close", front.reply(), 20_000);
  } catch (error) {
    if (!(error instanceof BackEndClosed)) throw error;
  }
}

/** Has the vhost service make inflight memory once: what it opens for that it keeps. */
async function firstInflight(socket: string): Promise<void> {
  await using front = FrontEnd.connect(socket);
  using _ = keepInflight(front);
  await front.start();
}

/** Processes of the services that have a standby: the one that works and the one that stands by, once one does. */
async function processesOf(fabric: TestFabric): Promise<{ active: number[]; standby: number[] }> {
  const active = [await activeOf(fabric, "nic"), await activeOf(fabric, "vhost")];
  const standby = await Promise.all(
    (["nic", "vhost"] as const).map(async (service) => (await must(`${fabric.url(service)}/api/v1/state`)).standby.pid),
  );
  return { active, standby };
}

/** Fuzzes until the time is up; answers how many connections. Throws with the seed that repeats what it found. */
export async function fuzzProtocol(seed: number, seconds: number): Promise<number> {
  await using fabric = await TestFabric.start(3, ["--standby"]);
  await using bystanders = await Bystanders.attach(fabric);
  const processes = await processesOf(fabric);
  await firstInflight(fabric.vf(2).socket);
  const others = ({ pf, vf }: Record<string, number>) => [pf, vf];
  const pids = others(fabric.pids());
  const before = openDescriptors(...processes.active);
  const end = performance.now() + seconds * 1000;
  let connections = 0;
  while (performance.now() < end) {
    const thisSeed = (seed + connections) >>> 0;
    try {
      await oneConnection(new Random(thisSeed), fabric.vf(2).socket);
      if (connections % CONNECTIONS_PER_CHECK === 0) await bystanders.check(2);
    } catch (cause) {
      throw new Error(
        `protocol fuzzer, seed ${thisSeed}: ${cause instanceof Error ? cause.message : cause}\n${
          fabric.process.errors.slice(-2000)
        }`,
        { cause },
      );
    }
    connections++;
  }
  await bystanders.check();
  await untilNoMoreDescriptors(before).catch((cause) => {
    throw new Error(`protocol fuzzer, seed ${seed}: ${cause.message}`, { cause });
  });
  const now = [await processesOf(fabric), others(fabric.pids())];
  if (JSON.stringify(now) !== JSON.stringify([processes, pids])) {
    throw new Error(
      `protocol fuzzer, seed ${seed}: a process died; ${JSON.stringify([processes, pids])} is ${JSON.stringify(now)}
${fabric.process.errors.slice(-2000)}`,
    );
  }
  return connections;
}
