/**
 * A take-over on trial. What a process does for the first time takes it several times as long: code is compiled, checks of
 * messages are generated, functions of the C library are bound. So one that stands by goes on with the session of a guest
 * that does not exist, before it learns of any that does, and gives everything back. When it takes over in earnest, the
 * guests do not wait for all that.
 */
import { Channel } from "../../shared/device/mod.ts";
import { Pace } from "../../shared/async/mod.ts";
import { GUEST_PACE } from "../../shared/engine/mod.ts";
import { ADV_PAGE_BYTES } from "../../shared/layout/advanced.ts";
import {
  createEventFd,
  createMemfd,
  duplicateFd,
  type Fd,
  Notifier,
  Outbox,
  type Reactor,
  shutDown,
  socketPair,
  UnixSocket,
  writeMemoryFile,
} from "../../shared/os/mod.ts";
import { log, type SwitchProgramme } from "../../shared/api/mod.ts";
import { VHOST_USER_F_PROTOCOL_FEATURES } from "../../shared/vhost_user/mod.ts";
import type { KeptSlot } from "./backend_slot.ts";
import { makeBackend } from "./backends.ts";
import type { Emulation } from "./emulation.ts";
import type { KeptLocal } from "./local_backend.ts";
import type { KeptDevice } from "./net_device.ts";
import { PAIR_SHARED_BYTES } from "./pair_layout.ts";
import { Port } from "./port.ts";
import { PortConfigs } from "./port_configs.ts";
import { NO_LINK, type PortContext } from "./port_context.ts";
import type { KeptSession } from "./session.ts";
import { SoftwareSwitch } from "./software_switch.ts";
import { type KeptInput, type KeptObject, Replica, type VhostMirror } from "./standby/mod.ts";
import type { KeptRings } from "./vring.ts";
import { PipeThreads } from "./wakeups.ts";

/** As little as any operator lets a guest have (shared/api/limits.ts). */
const MEMORY_BYTES = 64 * 1024;
const RING_SIZE = 2;
const RING_BYTES = 16 * 1024;
const PATH = "emulated";

/** Whoever has not rehearsed by then has met something that it waits for in vain. */
const LATE_MS = 10_000;

/** What a rehearsal is made with. */
export interface RehearsalParts {
  /** Its engine stands by. Nobody else has anything to do with it yet. */
  emulation: Emulation;
  reactor: Reactor;
  /** Has no standby: nobody is told of the guest that does not exist. */
  mirror: VhostMirror;
  runDir: string;
}

/**
 * Takes a guest over that does not exist. Everything is as it was when this answers. Throws if it cannot be done: nobody
 * knows then what is left of it, so this process is not to stand by.
 */
export async function rehearse(parts: RehearsalParts): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`a take-over on trial takes more than ${LATE_MS / 1000} s`)), LATE_MS);
  });
  await Promise.race([takeOverNobody(parts), late]).finally(() => clearTimeout(timer));
}

async function takeOverNobody({ emulation, reactor, mirror, runDir }: RehearsalParts): Promise<void> {
  const replica = new Replica(mirror);
  const notifier = new Notifier();
  const software = new SoftwareSwitch(emulation, { deviceSocket: "", reactor }, replica);
  const [frontEnd, backEnd] = socketPair("stream");
  const [nic, driver] = socketPair("seqpacket");
  const answering = answerAll(new Channel(new UnixSocket(nic, reactor)));
  // It is awaited last; until then nobody else is to hear of its failure.
  answering.catch(() => {});
  const context: PortContext = {
    ...{ name: 0, deviceSocket: "", replica, reactor, notifier },
    ...{ pace: new Pace(GUEST_PACE), pipeThreads: new PipeThreads() },
    link: () => NO_LINK,
    makeBackend: (path, events) => makeBackend(emulation, context, path, events),
    wish: () => Promise.resolve(undefined),
    announce: () => Promise.resolve(),
    log: (level, message) => void (level === "warn" && log(level, "vhost", `a take-over on trial: ${message}`)),
    recovers() {},
    forgetWishes() {},
    paused() {},
  };
  new PortConfigs(runDir).read(false);
  software.adopt({ objects: () => [["switch", switchObject()]] });
  const port = new Port(context, { role: "client", path: "", dataPath: PATH });
  const session = sessionObject(backEnd, driver);
  await port.adopt(session);
  emulation.takeOver(duplicateFd(emulation.engine.state.number), software);
  port.start();
  await port.close();
  emulation.engine.standBy();
  software.close();
  notifier.close();
  frontEnd.close();
  // What is left has nobody, which is so if the guest could not be gone on with.
  for (const { fds } of session.values()) for (const fd of fds) if (!fd.closed) fd.close();
  if (!nic.closed) shutDown(nic.number);
  await answering;
}

/** Answers whatever is asked, until the connection ends. */
async function answerAll(channel: Channel): Promise<void> {
  for (let packet = await channel.receive(); packet; packet = await channel.receive()) {
    for (const fd of packet.fds) fd.close();
    channel.send({ id: (packet.message as { id: number }).id, ok: true, value: {} });
  }
  channel.close();
}

/** Parts as a process has told them. */
function objectOf(parts: Record<string, [value: unknown, ...fds: Fd[]]>): KeptObject {
  return new Map(Object.entries(parts).map(([name, [value, ...fds]]) => [name, { value, fds }]));
}

/** A switch without vports. */
function switchObject(): KeptObject {
  const programme: SwitchProgramme = { switchMode: "veb", link: "up", vports: [], drivesPf: false };
  const text = new TextEncoder().encode(JSON.stringify(programme));
  const file = createMemfd("ringfabric-rehearsal", text.byteLength);
  writeMemoryFile(file.number, 0, text);
  return objectOf({ programme: [{ bytes: text.byteLength }, file] });
}

/** A session with a ring each way, whose front-end is at the other end of `socket`, and whose NIC at that of `lease`. */
function sessionObject(socket: Fd, lease: Fd): KeptObject {
  const memory = createMemfd("ringfabric-rehearsal", MEMORY_BYTES);
  const pair = createMemfd("ringfabric-rehearsal", PAIR_SHARED_BYTES);
  const registers = createMemfd("ringfabric-rehearsal", ADV_PAGE_BYTES);
  const region = { guestAddress: 0n, size: BigInt(MEMORY_BYTES), userAddress: 0n, mmapOffset: 0n };
  const features = 1n << BigInt(VHOST_USER_F_PROTOCOL_FEATURES);
  const ring = (index: number): [unknown, Fd, Fd] => {
    const at = BigInt(index * RING_BYTES);
    const areas = { descUser: at, availUser: at + 4096n, usedUser: at + 8192n };
    const state = { kicked: true, enabled: true, running: true, isBaseOurs: false, hasRun: true };
    return [
      { index, there: ["kick", "call"], fields: { size: RING_SIZE, ...areas, ...state } },
      createEventFd(),
      createEventFd(),
    ];
  };
  const session: KeptSession = { status: 0, lastRefusal: undefined };
  const rings: KeptRings = { features, protocolFeatures: 0n, startEnabled: false, pairs: 1, declined: 0n, offered: 1 };
  const input: KeptInput = { turn: 0, bytes: new Uint8Array(), done: 0, isLost: false };
  const device: KeptDevice = {
    ...{ link: NO_LINK, features, mtu: undefined, announce: false, written: [], allMulticast: false },
    ...{ groups: undefined, promisc: false, hasWished: false },
  };
  const local: KeptLocal = { pool: 0, buffer: undefined };
  const slot: KeptSlot = {
    ...{ path: PATH, isTaken: true, wasAsked: false },
    backend: { local, pair: { files: 5, isAttached: true } },
  };
  return objectOf({
    connection: [{}, socket, ...Outbox.open().fds],
    input: [input],
    session: [session],
    device: [device],
    rings: [rings],
    memory: [[region], memory],
    log: [{ isOn: false }],
    "ring 0": ring(0),
    "ring 1": ring(1),
    backend: [slot, pair, createEventFd(), createEventFd(), createEventFd(), registers, lease],
  });
}
