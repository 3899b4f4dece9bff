/**
 * Fuzzer for vhost-user: seeded sequences of messages, nearly right or not at all, with descriptors of all kinds, against
 * a real fabric. The services must live, leak nothing, and two honest guests must keep talking.
 */
import { createEventFd, type Fd } from "../../shared/os/mod.ts";
import { VIRTQ_PACKED_BASE_INITIAL } from "../../shared/layout/virtio.ts";
import { type RequestName, REQUESTS } from "../../shared/vhost_user/mod.ts";
import { Bystanders } from "../support/bystanders.ts";
import { openDescriptors, untilNoMoreDescriptors } from "../support/descriptors.ts";
import { TestFabric } from "../support/fabric.ts";
import {
  BackEndClosed,
  FEATURES,
  FrontEnd,
  type FrontEndGuest,
  memoryTable,
  PROTOCOL_FEATURES,
  singleRegion,
  u64,
  USER_BASE,
  vringAddress,
  vringState,
} from "../support/front_end.ts";
import { type VirtqueueName, VIRTQUEUES } from "../support/formats.ts";
import { PackedDriver } from "../support/packed_guest.ts";
import { within } from "../support/wait.ts";
import { Random } from "./random.ts";

const NAMES = Object.keys(REQUESTS) as RequestName[];
const MESSAGES_PER_CONNECTION = 40;
const CONNECTIONS_PER_CHECK = 25;

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
      return u64(random.chance(3) ? random.u64() : FEATURES);
    case "VHOST_USER_SET_PROTOCOL_FEATURES":
      return u64(random.chance(3) ? random.u64() : PROTOCOL_FEATURES);
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
      return vringAddress(index, at(queue?.desc ?? 0), at(queue?.used ?? 0), at(queue?.avail ?? 0));
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
    case "VHOST_USER_SET_STATUS":
      return u64(BigInt(random.below(256)));
    default:
      return new Uint8Array();
  }
}

function descriptors(random: Random, front: FrontEnd<FrontEndGuest>, eventFd: Fd): number[] {
  const kinds = [front.memory.fd.number, eventFd.number, front.socket.fd.number];
  if (random.chance(10)) return Array.from({ length: random.below(20) }, () => random.pick(kinds));
  return random.chance(2) ? [] : [random.pick(kinds.slice(0, 2))];
}

/** Sends one message; false if it was no whole message, so that the back-end may now wait for more of it. */
function sendOne(random: Random, front: FrontEnd<FrontEndGuest>, eventFd: Fd): boolean {
  const name = random.pick(NAMES);
  const needs: Partial<Record<RequestName, number[]>> = {
    VHOST_USER_SET_MEM_TABLE: [front.memory.fd.number],
    VHOST_USER_ADD_MEM_REG: [front.memory.fd.number],
    VHOST_USER_SET_VRING_KICK: [eventFd.number],
    VHOST_USER_SET_VRING_CALL: [eventFd.number],
    VHOST_USER_SET_VRING_ERR: [eventFd.number],
  };
  const fds = random.chance(4) ? descriptors(random, front, eventFd) : needs[name] ?? [];
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
  try {
    // Acknowledgements come once they are negotiated.
    if (!random.chance(4)) {
      await front.negotiate();
      if (random.chance(2)) await front.shareMemory();
      if (random.chance(4)) await front.startVring(random.below(2));
    }
    let whole = true;
    for (let i = random.below(MESSAGES_PER_CONNECTION); i > 0; i--) whole = sendOne(random, front, eventFd) && whole;
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

/** Fuzzes until the time is up; answers how many connections. Throws with the seed that repeats what it found. */
export async function fuzzProtocol(seed: number, seconds: number): Promise<number> {
  await using fabric = await TestFabric.start(3);
  await using bystanders = await Bystanders.attach(fabric);
  const pids = fabric.pids();
  const before = openDescriptors(fabric.pid("nic"), fabric.pid("vhost"));
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
  if (JSON.stringify(fabric.pids()) !== JSON.stringify(pids)) {
    throw new Error(`protocol fuzzer, seed ${seed}: a service died`);
  }
  return connections;
}
